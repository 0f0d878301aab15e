//! The vault against `attestation/SPEC.md` alone: section 9 written down a second time, with ring and nothing of this
//! crate, makes a sealed file that this crate opens, and the golden values of section 14.3.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;

use adyton_vault::header::Header;
use adyton_vault::hidden::open_hidden;
use adyton_vault::{FileClaims, Kek, Opener, merkle, model_binding};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::hmac::{self, HMAC_SHA256};

const KEK: [u8; 32] = [1; 32];
const SALT: [u8; 32] = [2; 32];
const FILE_ID: [u8; 16] = [3; 16];
const PLAINTEXT: &[u8] = b"abc";

/// The values of section 14.3, by name. Each has to be compared before the end.
struct Golden(BTreeMap<String, Vec<u8>>);

impl Golden {
    /// Reads the code block of the section; a line without a name goes on with the value above it.
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../attestation/SPEC.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (_, rest) = text.split_once("### 14.3 ").expect("the section is there");
        let block = rest.split("```").nth(1).expect("it has a block of values");
        let mut digits: Vec<(String, String)> = Vec::new();
        for line in block.lines().filter(|line| !line.is_empty()) {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            match name.trim() {
                "" => digits.last_mut().expect("a value to go on with").1.push_str(value),
                name => digits.push((name.to_owned(), value.to_owned())),
            }
        }
        Self(digits.into_iter().map(|(name, digits)| (name, hex::decode(digits).unwrap())).collect())
    }

    fn is(&mut self, name: &str, computed: impl AsRef<[u8]>) {
        let golden = self.0.remove(name).unwrap_or_else(|| panic!("section 14.3 lacks {name}"));
        assert_eq!(hex::encode(computed), hex::encode(golden), "{name}");
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    digest(&SHA256, &parts.concat()).as_ref().try_into().unwrap()
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    hmac::sign(&hmac::Key::new(HMAC_SHA256, key), &parts.concat()).as_ref().try_into().unwrap()
}

/// HKDF-Expand (RFC 5869, 2.3) of one block.
fn expand(prk: &[u8], info: &[&[u8]]) -> [u8; 32] {
    mac(prk, &[&info.concat(), &[1]])
}

fn lp(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// AES-256-GCM under a zero nonce: `ciphertext || tag`.
fn encrypt(key: &[u8; 32], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut bytes = plaintext.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), Aad::from(aad), &mut bytes).unwrap();
    bytes
}

fn binding() -> [u8; 32] {
    sha256(&[&lp(b"owner"), &lp(b"model"), &7u64.to_be_bytes()])
}

/// Section 9.2 for a file of one chunk: header and chunk.
fn sealed_file(golden: &mut Golden) -> (Vec<u8>, Vec<u8>) {
    let binding = binding();
    let dek = expand(&mac(&SALT, &[&KEK]), &[b"adyton/v1/seal/dek", &FILE_ID, &binding]);
    let prk = mac(&SALT, &[&dek]);
    let commitment = expand(&prk, &[b"adyton/v1/seal/commit", &FILE_ID]);
    let mac_key = expand(&prk, &[b"adyton/v1/seal/mac", &FILE_ID]);
    let segment = expand(&prk, &[b"adyton/v1/seal/seg", &FILE_ID, &[0; 4]]);
    let mut header = [
        &b"adyton\r\n\0\x01\0\x01\x14"[..],
        &[0; 11],
        &FILE_ID,
        &SALT,
        &binding,
        &commitment,
        &1u64.to_be_bytes(),
        &3u64.to_be_bytes(),
        &[0; 4],
    ]
    .concat();
    let header_mac = mac(&mac_key, &[&header]);
    header.extend_from_slice(&header_mac);
    let mut padded = vec![0; 1 << 20];
    padded[..PLAINTEXT.len()].copy_from_slice(PLAINTEXT);
    let aad = [&lp(b"adyton/v1/seal/chunk")[..], &FILE_ID, &[0; 8], &[1], &3u32.to_be_bytes()].concat();
    let chunk = encrypt(&segment, &aad, &padded);
    golden.is("DEK", dek);
    golden.is("key commitment", commitment);
    golden.is("header MAC key", mac_key);
    golden.is("segment key 0", segment);
    golden.is("sealed header", &header);
    golden.is("chunk 0 begins", &chunk[..16]);
    golden.is("chunk 0 tag", &chunk[chunk.len() - 16..]);
    golden.is("H(sealed file)", sha256(&[&header, &chunk]));
    (header, chunk)
}

/// The hidden description of section 9.1.
fn hidden(golden: &mut Golden) -> (Vec<u8>, Vec<u8>) {
    let zeros = [&[0x58, 0x20][..], &[0; 32]].concat();
    let text = |text: &str| [&[0x60 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let names = [text("owner"), text("model"), text("2026-11")].concat();
    let description = [&[0x85][..], &names, &zeros, &zeros].concat();
    let key = expand(&mac(&SALT, &[&KEK]), &[b"adyton/v1/seal/hidden"]);
    let mut padded = lp(&description);
    padded.resize(1024, 0);
    let hidden = [&SALT[..], &encrypt(&key, &binding(), &padded)].concat();
    golden.is("description", &description);
    golden.is("H(hidden)", sha256(&[&hidden]));
    (description, hidden)
}

#[test]
fn what_the_specification_alone_makes_opens() {
    let mut golden = Golden::read();
    let kek = Kek::from_bytes(&mut KEK.clone());
    golden.is("model binding", model_binding(b"owner", "model", 7));
    golden.is("leaf 0", merkle::leaf(0, PLAINTEXT));

    let (header, chunk) = sealed_file(&mut golden);
    let claims = FileClaims {
        file_id: FILE_ID,
        plaintext_len: 3,
        // The tree of one leaf is the leaf.
        plaintext_root: sha256(&[&[0], b"adyton/v1/seal/leaf", &[0; 8], PLAINTEXT]),
        fixed_header_hash: sha256(&[&header[..152]]),
        owner_id: b"owner",
        model_name: "model",
        counter: 7,
    };
    let opener = Opener::new(&Header::parse(&header).unwrap(), &kek, &claims).unwrap();
    let opened = opener.open_stream(&mut &chunk[..], None, &mut |_| ()).unwrap();
    assert_eq!(**opened.expose_all().unwrap(), *PLAINTEXT);

    let (description, hidden) = hidden(&mut golden);
    assert_eq!(*open_hidden(&kek, &binding(), &hidden).unwrap(), description);
    assert!(golden.0.is_empty(), "nothing computes {:?}", golden.0.keys());
}
