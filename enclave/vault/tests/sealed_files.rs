//! Sealed files end to end: what opens, and each way in which a host or an accident can spoil one.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

use adyton_vault::chunk::{CHUNK_LEN, SEALED_CHUNK_LEN};
use adyton_vault::header::{FIXED_LEN, HeaderError};
use adyton_vault::wrap::{self, Kem, WrapError};
use adyton_vault::{
    FileClaims, Header, Kek, OpenError, Opener, Plaintext, RecipientKey, SealError, SealParams, SealedFile,
    Suite, open_file, readdress, seal_file, seal_stream,
};
use proptest::prelude::*;
use std::num::NonZeroUsize;

const HEADER_LEN: usize = FIXED_LEN + 4 + 32;
const THREE_CHUNKS: usize = 2 * CHUNK_LEN + 4321;

fn kek() -> Kek {
    Kek::from_bytes(&mut [1; 32])
}

fn params(kek: &Kek) -> SealParams<'_> {
    SealParams {
        kek,
        owner_id: b"owner",
        model_name: "model",
        counter: 7,
        suite: Suite::Aes256Gcm,
        recipients: &[],
        threads: NonZeroUsize::new(2),
    }
}

fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + (i >> 8) * 13) as u8).collect()
}

fn sealed(plain: &[u8], params: &SealParams<'_>) -> (Vec<u8>, SealedFile) {
    let mut out = Vec::new();
    let file = seal_stream(&mut &plain[..], plain.len() as u64, &mut out, params, &mut |_| {}).unwrap();
    assert_eq!(out.len() as u64, file.sealed_len);
    (out, file)
}

fn claims(file: &SealedFile) -> FileClaims<'static> {
    FileClaims {
        file_id: file.file_id,
        plaintext_len: file.plaintext_len,
        plaintext_root: file.plaintext_root,
        fixed_header_hash: file.fixed_header_hash,
        owner_id: b"owner",
        model_name: "model",
        counter: 7,
    }
}

fn open(mut bytes: &[u8], kek: &Kek, claims: &FileClaims<'_>) -> Result<Plaintext, OpenError> {
    let header = Header::read(&mut bytes)?;
    Opener::new(&header, kek, claims)?.open_stream(&mut bytes, NonZeroUsize::new(2), &mut |_| {})
}

/// The error of opening `bytes`; `Plaintext` has no `Debug`, so `unwrap_err` cannot be used.
fn refusal(bytes: &[u8], claims: &FileClaims<'_>) -> OpenError {
    open(bytes, &kek(), claims).err().expect("must not open")
}

#[test]
fn every_size_suite_and_thread_count_round_trips() {
    let kek = kek();
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, THREE_CHUNKS] {
            for threads in [1, 3] {
                let threads = NonZeroUsize::new(threads);
                let plain = plaintext(len);
                let (bytes, file) = sealed(&plain, &SealParams { suite, threads, ..params(&kek) });
                assert_eq!((bytes.len() - HEADER_LEN) % SEALED_CHUNK_LEN, 0, "padded to whole chunks");
                let mut rest = bytes.as_slice();
                let header = Header::read(&mut rest).unwrap();
                let mut last = 0;
                let opened = Opener::new(&header, &kek, &claims(&file))
                    .and_then(|opener| {
                        opener.open_stream(&mut rest, threads, &mut |done| {
                            assert!(done >= last);
                            last = done;
                        })
                    })
                    .unwrap();
                assert!(*opened.expose_all().unwrap() == plain, "{suite:?}, {len} bytes");
                assert_eq!(last, len as u64, "progress ends at the whole");
            }
        }
    }
}

#[test]
fn ciphertext_says_nothing_and_never_repeats() {
    let (kek, plain) = (kek(), plaintext(CHUNK_LEN));
    let (one, one_file) = sealed(&plain, &params(&kek));
    let (two, two_file) = sealed(&plain, &params(&kek));
    assert_ne!(one_file.file_id, two_file.file_id);
    assert_ne!(one[HEADER_LEN..][..64], two[HEADER_LEN..][..64]);
    assert_eq!(one_file.plaintext_root, two_file.plaintext_root, "the root is of the plaintext alone");
    for probe in [&plain[..16], b"owner", b"model"] {
        assert!(!one.windows(probe.len()).any(|window| window == probe));
    }
    assert!(!one.windows(32).any(|window| window == [1; 32]), "the KEK is not in the file");
}

#[test]
fn wrong_key_is_refused_before_the_body_is_read() {
    let kek = kek();
    let (bytes, file) = sealed(&plaintext(10), &params(&kek));
    let header = Header::parse(&bytes[..HEADER_LEN]).unwrap();
    let mut wrong = [1; 32];
    wrong[31] = 0;
    let refused = Opener::new(&header, &Kek::from_bytes(&mut wrong), &claims(&file));
    assert!(matches!(refused.err(), Some(OpenError::NotOpened)));
}

#[test]
fn every_claim_must_hold() {
    let kek = kek();
    let (bytes, file) = sealed(&plaintext(THREE_CHUNKS), &params(&kek));
    let good = claims(&file);
    assert!(open(&bytes, &kek, &good).is_ok());
    let other = |change: fn(&mut FileClaims<'static>)| {
        let mut claims = good.clone();
        change(&mut claims);
        refusal(&bytes, &claims)
    };
    let not_claimed = |error| matches!(error, OpenError::NotTheClaimedFile(_));
    assert!(not_claimed(other(|c| c.file_id[0] ^= 1)));
    assert!(not_claimed(other(|c| c.plaintext_len += 1)));
    assert!(not_claimed(other(|c| c.fixed_header_hash[31] ^= 1)));
    assert!(not_claimed(other(|c| c.owner_id = b"owne")));
    assert!(not_claimed(other(|c| c.model_name = "model2")));
    assert!(not_claimed(other(|c| c.counter = 6)));
    assert!(matches!(other(|c| c.plaintext_root[0] ^= 1), OpenError::Root));
}

#[test]
fn any_changed_header_byte_is_refused() {
    let kek = kek();
    let recipients = [RecipientKey { kem: Kem::X25519, public_key: wrap::generate(Kem::X25519).unwrap().1 }];
    let (bytes, file) = sealed(&plaintext(10), &SealParams { recipients: &recipients, ..params(&kek) });
    let header_len = Header::read(&mut bytes.as_slice()).unwrap().as_bytes().len();
    assert_eq!(header_len, HEADER_LEN + 126);
    for at in 0..header_len {
        let mut changed = bytes.clone();
        changed[at] ^= 0x80;
        assert!(open(&changed, &kek, &claims(&file)).is_err(), "header byte {at}");
    }
    // Past the fixed header, only the MAC stands between the host and a changed recipient.
    for at in [FIXED_LEN + 4 + 10, header_len - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(matches!(refusal(&changed, &claims(&file)), OpenError::NotOpened), "byte {at}");
    }
}

#[test]
fn key_commitment_is_compared_even_if_the_manifest_agrees() {
    let kek = kek();
    let (mut bytes, file) = sealed(&plaintext(10), &params(&kek));
    bytes[104] ^= 1;
    let header = Header::parse(&bytes[..HEADER_LEN]).unwrap();
    let agreeing = FileClaims { fixed_header_hash: header.fixed().hash(), ..claims(&file) };
    assert!(matches!(refusal(&bytes, &agreeing), OpenError::NotOpened));
}

/// Chunk `index` of a sealed file without recipients.
fn chunk_of(bytes: &[u8], index: usize) -> &[u8] {
    &bytes[HEADER_LEN + index * SEALED_CHUNK_LEN..][..SEALED_CHUNK_LEN]
}

/// The header of `bytes` with the given chunks after it.
fn assembled(bytes: &[u8], chunks: &[&[u8]]) -> Vec<u8> {
    [&bytes[..HEADER_LEN], &chunks.concat()].concat()
}

#[test]
fn chunks_cannot_be_moved_dropped_repeated_or_spliced() {
    let kek = kek();
    let (bytes, file) = sealed(&plaintext(THREE_CHUNKS), &params(&kek));
    let (other, _) = sealed(&plaintext(THREE_CHUNKS), &params(&kek));
    let (a, b, c) = (chunk_of(&bytes, 0), chunk_of(&bytes, 1), chunk_of(&bytes, 2));
    let opens = |chunks: &[&[u8]]| open(&assembled(&bytes, chunks), &kek, &claims(&file)).map(|_| ());
    assert!(opens(&[a, b, c]).is_ok());
    assert!(matches!(opens(&[b, a, c]), Err(OpenError::NotOpened)), "swapped");
    assert!(matches!(opens(&[a, a, c]), Err(OpenError::NotOpened)), "repeated");
    assert!(
        matches!(opens(&[a, chunk_of(&other, 1), c]), Err(OpenError::NotOpened)),
        "spliced from another file"
    );
    assert!(matches!(opens(&[a, c]), Err(OpenError::NotOpened)), "middle one dropped");
    assert!(matches!(opens(&[a, b]), Err(OpenError::Truncated { chunk: 2, chunk_count: 3 })));
    assert!(matches!(opens(&[a]), Err(OpenError::Truncated { chunk: 1, chunk_count: 3 })));
    assert!(matches!(opens(&[]), Err(OpenError::Truncated { chunk: 0, chunk_count: 3 })));
    assert!(matches!(opens(&[a, b, c, c]), Err(OpenError::Trailing)));
    assert!(matches!(opens(&[a, b, c, &[0]]), Err(OpenError::Trailing)));
    assert!(
        matches!(opens(&[a, b, &c[..CHUNK_LEN]]), Err(OpenError::Truncated { chunk: 2, .. })),
        "tag missing"
    );
}

#[test]
fn a_header_cannot_be_put_before_another_files_chunks() {
    let kek = kek();
    let (bytes, file) = sealed(&plaintext(CHUNK_LEN), &params(&kek));
    let (other, _) = sealed(&plaintext(CHUNK_LEN), &params(&kek));
    assert!(matches!(
        refusal(&assembled(&bytes, &[chunk_of(&other, 0)]), &claims(&file)),
        OpenError::NotOpened
    ));
    assert!(matches!(refusal(&other, &claims(&file)), OpenError::NotTheClaimedFile("file id")));
}

/// A shorter file whose last chunk is a middle chunk of a longer one: only the `last` byte of the AAD differs.
#[test]
fn a_middle_chunk_cannot_become_the_last() {
    let kek = kek();
    let (long, _) = sealed(&plaintext(2 * CHUNK_LEN), &params(&kek));
    let mut header = long[..HEADER_LEN].to_vec();
    header[136..144].copy_from_slice(&1u64.to_be_bytes());
    header[144..152].copy_from_slice(&(CHUNK_LEN as u64).to_be_bytes());
    let shorter = [&header, chunk_of(&long, 0)].concat();
    let parsed = Header::parse(&header).unwrap();
    let fixed = parsed.fixed();
    let forged = FileClaims {
        file_id: fixed.file_id,
        plaintext_len: fixed.plaintext_len,
        plaintext_root: [0; 32],
        fixed_header_hash: fixed.hash(),
        ..claims(&sealed(&[], &params(&kek)).1)
    };
    assert!(matches!(refusal(&shorter, &forged), OpenError::NotOpened), "the header MAC covers the length");
}

#[test]
fn files_open_by_path_and_wrong_sizes_are_found_first() {
    let directory = tempfile::tempdir().unwrap();
    let (plain_path, path) = (directory.path().join("plain"), directory.path().join("sealed"));
    let (kek, plain) = (kek(), plaintext(THREE_CHUNKS));
    std::fs::write(&plain_path, &plain).unwrap();
    std::fs::write(&path, b"an older file").unwrap();
    let file = seal_file(&plain_path, &path, &params(&kek), &mut |_| {}).unwrap();
    let left: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "no temporary file is left: {left:?}");

    let open = || open_file(&path, &kek, &claims(&file), None, &mut |_| {});
    assert!(*open().unwrap().expose_all().unwrap() == plain);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..HEADER_LEN + SEALED_CHUNK_LEN + 5]).unwrap();
    assert!(matches!(open().err(), Some(OpenError::Truncated { chunk: 1, chunk_count: 3 })));
    std::fs::write(&path, [&bytes[..], &[0]].concat()).unwrap();
    assert!(matches!(open().err(), Some(OpenError::Trailing)));
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&path, changed).unwrap();
    assert!(matches!(open().err(), Some(OpenError::NotOpened)));
    std::fs::write(&path, &plain).unwrap();
    assert!(matches!(open().err(), Some(OpenError::Header(HeaderError::Magic))));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(open().err(), Some(OpenError::Io(_))));
}

#[test]
fn recipients_unwrap_the_kek_and_can_be_changed_without_touching_chunks() {
    let kek = kek();
    let (one, one_public) = wrap::generate(Kem::XWing).unwrap();
    let (two, two_public) = wrap::generate(Kem::X25519).unwrap();
    let recipients = [RecipientKey { kem: Kem::XWing, public_key: one_public }];
    let (bytes, file) = sealed(&plaintext(100), &SealParams { recipients: &recipients, ..params(&kek) });
    let header = Header::read(&mut bytes.as_slice()).unwrap();
    assert!(open(&bytes, &header.unwrap_kek(&one).unwrap(), &claims(&file)).is_ok());
    assert_eq!(header.unwrap_kek(&two).err(), Some(WrapError::NotARecipient));

    let chunks = &bytes[header.as_bytes().len()..];
    let to_two = [RecipientKey { kem: Kem::X25519, public_key: two_public }];
    let changed = readdress(&header, &kek, &to_two).unwrap();
    let moved = [changed.as_bytes(), chunks].concat();
    assert!(open(&moved, &changed.unwrap_kek(&two).unwrap(), &claims(&file)).is_ok(), "claims still hold");
    assert_eq!(changed.unwrap_kek(&one).err(), Some(WrapError::NotARecipient));
    let other = Kek::from_bytes(&mut [2; 32]);
    assert!(matches!(readdress(&header, &other, &to_two), Err(SealError::WrongKek)));
    let nonsense = [RecipientKey { kem: Kem::X25519, public_key: vec![1, 2, 3] }];
    assert!(matches!(readdress(&header, &kek, &nonsense), Err(SealError::Recipient { index: 0, .. })));
}

#[test]
fn a_failing_reader_ends_opening_with_its_error() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("gone"))
        }
    }
    let kek = kek();
    let (bytes, file) = sealed(&plaintext(THREE_CHUNKS), &params(&kek));
    let header = Header::read(&mut bytes.as_slice()).unwrap();
    let opener = Opener::new(&header, &kek, &claims(&file)).unwrap();
    let refused = opener.open_stream(&mut Failing, None, &mut |_| {});
    assert!(matches!(refused.err(), Some(OpenError::Io(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn one_flipped_bit_never_opens(at in any::<prop::sample::Index>(), bit in 0u8..8, len in 0usize..CHUNK_LEN + 9) {
        let kek = kek();
        let (mut bytes, file) = sealed(&plaintext(len), &params(&kek));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(open(&bytes, &kek, &claims(&file)).is_err());
    }

    #[test]
    fn no_truncation_opens(at in any::<prop::sample::Index>()) {
        let kek = kek();
        let (bytes, file) = sealed(&plaintext(CHUNK_LEN + 1), &params(&kek));
        prop_assert!(open(&bytes[..at.index(bytes.len())], &kek, &claims(&file)).is_err());
    }
}
