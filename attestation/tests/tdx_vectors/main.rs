//! One row for each way TDX evidence can be right or wrong: a fake Intel makes everything as it should be, and the row
//! makes one thing wrong.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod der;
mod fake;
mod rows;

use std::sync::LazyLock;

use adyton_attestation::eventlog::EventLog;
use adyton_attestation::{
    Endorsements, Evidence, Policy, Rejected, StepResult, TdxReferences, TrustAnchors, VerdictCache,
    VerifiedReport, Waiver,
};
use proptest::prelude::*;

use fake::{Fake, Keys, NOW, Parts, XFAM, time};

static KEYS: LazyLock<Keys> = LazyLock::new(Keys::new);

fn sha256(bytes: &[u8]) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().unwrap()
}

/// A production policy with the honest machine's reference values.
fn references(policy: Policy) -> Policy {
    policy
        .measurements([[0x3d; 48]])
        .host_data([[0xc0; 32]])
        .chip_allowlist([sha256(&[0x77; 16])])
        .tdx_references(TdxReferences {
            xfam: vec![XFAM],
            rtmr0: vec![[0xa0; 48]],
            rtmr1: vec![[0xa1; 48]],
            rtmr2: vec![[0xa2; 48]],
            mr_seam: vec![[0x5e; 48]],
            ..TdxReferences::default()
        })
}

fn waiver(advisory: &str) -> Waiver {
    Waiver::new(advisory, time(NOW + 1), "a row of the test").unwrap()
}

fn policy(name: &str) -> Policy {
    match name {
        "vendor" => Policy::vendor(),
        "standard" => references(Policy::standard()),
        "strict" => references(Policy::strict()),
        "unset" => Policy::standard(),
        "waived" => {
            Policy::vendor().waivers(["INTEL-SA-00960", "INTEL-SA-00982", "INTEL-SA-01036"].map(waiver))
        }
        "waived-half" => Policy::vendor().waivers([waiver("INTEL-SA-00960")]),
        "evaluation-21" => references(Policy::standard()).min_tdx_evaluation_number(21),
        "evaluation-lower" => references(Policy::standard()).min_tdx_evaluation_number(3),
        other => panic!("no policy {other}"),
    }
}

fn judge(parts: &Parts, policy: &Policy, now: u64) -> Result<VerifiedReport, Rejected> {
    let anchors = TrustAnchors::dangerous_root(&parts.root)?;
    // Through the wire form, so that it is exercised too.
    let evidence = Evidence::tdx_from_parts(&parts.quote, &parts.collateral.encode())?;
    let evidence = Evidence::decode(&evidence.encode())?;
    evidence.verify(&anchors, &Endorsements::default(), time(now))?.appraise(policy, &[0xda; 64])
}

fn verdict(outcome: &Result<VerifiedReport, Rejected>) -> &str {
    outcome.as_ref().map_or_else(|rejected| rejected.reason.as_str(), |_| "accept")
}

#[test]
fn every_row_gets_its_verdict() {
    let mut wrong = Vec::new();
    let rows = rows::rows();
    for (name, want, by, make) in &rows {
        let mut fake = Fake::honest();
        make(&mut fake);
        let outcome = judge(&fake.build(&KEYS), &policy(by), NOW);
        if verdict(&outcome) != *want {
            wrong.push(format!("{name}: expected {want}, got {outcome:#?}"));
        }
        // A stricter policy never accepts more.
        let accepted =
            ["strict", "standard", "vendor"].map(|by| judge(&fake.build(&KEYS), &policy(by), NOW).is_ok());
        assert!(accepted.is_sorted(), "{name}: {accepted:?}");
    }
    let mut names: Vec<_> = rows.iter().map(|(name, ..)| name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rows.len(), "two rows have one name");
    assert!(rows.len() >= 40, "only {} rows", rows.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_policy_that_takes_anything_says_so() {
    let report = judge(&Fake::honest().build(&KEYS), &Policy::vendor(), NOW).unwrap();
    for name in ["measurement", "rtmr0", "rtmr3", "xfam", "mr-seam", "chip-allowlist", "evaluation-number"] {
        let step = report.steps().iter().find(|step| step.name == name).unwrap();
        assert_eq!(step.result, StepResult::Skip, "{name}");
    }
}

#[test]
fn every_claim_is_what_was_signed() {
    let mut fake = Fake::honest();
    for (at, byte) in (184..328).zip(1..) {
        fake.quote.body[at] = byte;
    }
    let body = fake.quote.body.clone();
    let at = |from: usize, len: usize| body[from..from + len].to_vec();
    let report = judge(&fake.build(&KEYS), &Policy::vendor(), NOW).unwrap();
    let tdx = report.tdx().unwrap();
    assert_eq!(tdx.quote_version(), 5);
    assert_eq!(tdx.tee_tcb_svn().to_vec(), at(0, 16));
    let (module, signer) = tdx.mr_seam_and_signer();
    assert_eq!([module, signer].concat(), at(16, 96));
    assert_eq!(tdx.attributes().bits().to_le_bytes().to_vec(), at(120, 8));
    assert_eq!(tdx.xfam().to_le_bytes().to_vec(), at(128, 8));
    assert_eq!(tdx.mr_td().to_vec(), at(136, 48));
    assert_eq!(tdx.mr_config_id().to_vec(), at(184, 48));
    let (owner, configuration) = tdx.mr_owner_and_config();
    assert_eq!([owner, configuration].concat(), at(232, 96));
    assert_eq!(tdx.rtmrs().concat(), at(328, 192));
    assert_eq!(tdx.tee_tcb_svn_2().unwrap().to_vec(), at(584, 16));
    assert_eq!(tdx.mr_service_td().unwrap().to_vec(), at(600, 48));
    assert_eq!(tdx.fmspc(), [0x90, 0xc0, 0x6f, 0, 0, 0]);
    assert_eq!(tdx.platform_id(), sha256(&[0x77; 16]));
    // And what the claims of every platform are there.
    assert_eq!(report.measurement().to_vec(), at(136, 48));
    assert_eq!(report.host_data().to_vec(), at(184, 32));
    assert_eq!(report.report_data().to_vec(), at(520, 64));
    assert_eq!(report.platform_id(), tdx.platform_id());
    assert!(report.snp().is_none() && !report.simulated());
}

#[test]
fn a_waived_status_is_still_shown_with_its_advisories() {
    let mut fake = Fake::honest();
    fake.info("\"pcesvn\":13", "\"pcesvn\":14");
    let report = judge(&fake.build(&KEYS), &policy("waived"), NOW).unwrap();
    let tdx = report.tdx().unwrap();
    assert_eq!(tdx.tcb_status().to_string(), "OutOfDate");
    let advisories: Vec<String> = tdx.advisories().iter().map(ToString::to_string).collect();
    assert_eq!(advisories, ["INTEL-SA-00960", "INTEL-SA-00982"]);
}

/// RTMR3 is zero or what an event log leads to; a list of the caller's own is kept to.
#[test]
fn an_event_log_accounts_for_rtmr3_where_no_values_are_named() {
    let event = |rtmr: u32, fill: &str| {
        format!(
            "{{\"imr\":{rtmr},\"event_type\":13,\"digest\":\"{}\",\"event\":\"\",\"event_payload\":\"\"}}",
            fill.repeat(48)
        )
    };
    let log = |events: &[String]| EventLog::parse(format!("[{}]", events.join(",")).as_bytes()).unwrap();
    let whole = log(&[event(0, "01"), event(1, "02"), event(2, "03"), event(3, "04")]);
    let registers = whole.replay();
    let mut fake = Fake::honest();
    for (register, at) in registers.iter().zip([328, 376, 424, 472]) {
        fake.quote.body[at..at + 48].copy_from_slice(register);
    }
    let parts = fake.build(&KEYS);
    let named = |rtmr3| TdxReferences {
        launches: Vec::new(),
        xfam: vec![XFAM],
        rtmr0: vec![registers[0]],
        rtmr1: vec![registers[1]],
        rtmr2: vec![registers[2]],
        rtmr3,
        mr_seam: vec![[0x5e; 48]],
    };
    let judge = |rtmr3, log: Option<&EventLog>| {
        let anchors = TrustAnchors::dangerous_root(&parts.root).unwrap();
        let evidence = Evidence::tdx_from_parts(&parts.quote, &parts.collateral.encode()).unwrap();
        let authentic = evidence.verify(&anchors, &Endorsements::default(), time(NOW)).unwrap();
        let authentic = match log {
            Some(log) => authentic.with_event_log(log),
            None => authentic,
        };
        let policy = references(Policy::standard()).tdx_references(named(rtmr3));
        authentic
            .appraise(&policy, &[0xda; 64])
            .map_or_else(|rejected| rejected.reason.as_str(), |_| "accept")
    };
    assert_eq!(judge(None, Some(&whole)), "accept");
    assert_eq!(judge(None, None), "rtmr");
    assert_eq!(judge(Some(vec![registers[3]]), None), "accept");
    assert_eq!(judge(Some(vec![[0; 48]]), Some(&whole)), "rtmr");
    let silent = log(&[event(0, "01"), event(1, "02"), event(2, "03")]);
    assert_eq!(
        judge(None, Some(&silent)),
        "rtmr",
        "a log that says nothing of RTMR3 does not account for it"
    );
    let other = log(&[event(0, "01"), event(1, "02"), event(2, "03"), event(3, "05")]);
    assert_eq!(judge(None, Some(&other)), "rtmr-replay");
}

#[test]
fn registers_of_two_launches_do_not_make_one() {
    let parts = Fake::honest().build(&KEYS);
    let launched = [[0x3d; 48], [0xa0; 48], [0xa1; 48], [0xa2; 48]];
    let accepting = |launches: Vec<[[u8; 48]; 4]>, rtmr3: Option<Vec<[u8; 48]>>| {
        let references = TdxReferences {
            launches,
            xfam: vec![XFAM],
            rtmr3,
            mr_seam: vec![[0x5e; 48]],
            ..TdxReferences::default()
        };
        let policy = self::references(Policy::standard()).measurements([]).tdx_references(references);
        verdict(&judge(&parts, &policy, NOW)).to_owned()
    };
    assert_eq!(accepting(vec![[[0; 48]; 4], launched], None), "accept");
    assert_eq!(accepting(vec![launched], Some(vec![[7; 48]])), "rtmr", "RTMR3 has its own rule");
    assert_eq!(accepting(vec![], None), "measurement");
    for changed in 0..4 {
        // Each value is in one of the launches, but never all in one.
        let (mut old, mut new) = ([[0; 48]; 4], launched);
        old[changed] = launched[changed];
        new[changed] = [0; 48];
        assert_eq!(accepting(vec![old, new], None), "measurement", "{changed}");
    }
}

#[test]
fn a_genuine_root_is_not_the_fake_one() {
    let parts = Fake::honest().build(&KEYS);
    let evidence = Evidence::tdx_from_parts(&parts.quote, &parts.collateral.encode()).unwrap();
    let refusal = evidence.verify(&TrustAnchors::pinned(), &Endorsements::default(), time(NOW)).unwrap_err();
    assert_eq!(refusal.reason.as_str(), "untrusted-root");
}

#[test]
fn padding_is_for_files_and_not_for_the_wire() {
    let mut fake = Fake::honest();
    fake.quote.padding = vec![0; 70];
    let parts = fake.build(&KEYS);
    let evidence = Evidence::tdx_from_parts(&parts.quote, &parts.collateral.encode()).unwrap();
    assert_eq!(evidence.report_bytes().len() + 70, parts.quote.len());
    type Wire = (u8, u8, serde_bytes::ByteBuf, serde_bytes::ByteBuf);
    let (version, platform, quote, collateral): Wire =
        adyton_attestation::wire::decode(&evidence.encode(), 200_000).unwrap();
    let padded = [quote.as_slice(), &[0]].concat();
    let wire = adyton_attestation::wire::encode(&(
        version,
        platform,
        serde_bytes::ByteBuf::from(padded),
        collateral,
    ));
    assert_eq!(Evidence::decode(&wire).unwrap_err().reason.as_str(), "encoding");
}

#[test]
fn a_cached_verdict_is_the_same_and_never_outlives_its_window() {
    let fake = Fake::honest();
    let parts = fake.build(&KEYS);
    let anchors = TrustAnchors::dangerous_root(&parts.root).unwrap();
    let evidence =
        |parts: &Parts| Evidence::tdx_from_parts(&parts.quote, &parts.collateral.encode()).unwrap();
    let none = Endorsements::default();
    let mut cache = VerdictCache::new(2);
    let mut look = |parts: &Parts, now: u64| {
        let plain = evidence(parts).verify(&anchors, &none, time(now));
        let cached = evidence(parts).verify_cached(&anchors, &none, time(now), &mut cache);
        let shown = |outcome: Result<adyton_attestation::Authentic, Rejected>| {
            outcome.and_then(|it| it.appraise_saved(&Policy::vendor())).map(|claims| claims.steps().to_vec())
        };
        let (plain, cached) = (shown(plain), shown(cached));
        assert_eq!(plain, cached);
        (plain.map_err(|rejected| rejected.reason.as_str()).map(|_| ()), cache.len())
    };
    assert_eq!(look(&parts, NOW), (Ok(()), 1));
    assert_eq!(look(&parts, NOW), (Ok(()), 1));
    // The lists end after a day, before everything else; the first second after it is too late.
    const DAY: u64 = 24 * 3600;
    assert_eq!(look(&parts, NOW + DAY), (Ok(()), 1));
    assert_eq!(look(&parts, NOW + DAY + 1), (Err("crl-stale"), 1));
    assert_eq!(look(&parts, NOW - DAY - 1), (Err("crl-stale"), 1));
    // The machine's next quote is answered from the cache; a forged one is not accepted for it.
    let mut other = fake.clone();
    other.quote.body[328] ^= 1;
    assert_eq!(look(&other.next_quote(&KEYS, &parts), NOW), (Ok(()), 1));
    let mut forged = parts.clone();
    forged.quote[60] ^= 1;
    assert_eq!(look(&forged, NOW), (Err("quote-signature"), 1));
    // Other bytes of collateral are other collateral, and roots that do not include the entry's find nothing.
    let mut changed = parts.clone();
    changed.collateral.pck_crl[10] ^= 1;
    assert!(look(&changed, NOW).0.is_err());
    let stranger = evidence(&parts).verify_cached(&TrustAnchors::pinned(), &none, time(NOW), &mut cache);
    assert_eq!(stranger.unwrap_err().reason.as_str(), "untrusted-root");
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_full_cache_forgets_the_oldest_and_none_keeps_nothing() {
    let machines: Vec<Parts> = (0..3).map(|_| Fake::honest().build(&KEYS)).collect();
    let mut cache = VerdictCache::new(2);
    let mut nothing = VerdictCache::new(0);
    for parts in &machines {
        let anchors = TrustAnchors::dangerous_root(&parts.root).unwrap();
        for cache in [&mut cache, &mut nothing] {
            let evidence = Evidence::tdx_from_parts(&parts.quote, &parts.collateral.encode()).unwrap();
            let _ = evidence.verify_cached(&anchors, &Endorsements::default(), time(NOW), cache).unwrap();
        }
    }
    assert_eq!((cache.len(), nothing.len()), (2, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn one_flipped_bit_is_never_accepted(at in any::<prop::sample::Index>(), bit in 0..8u32, part in 0..5usize) {
        static HONEST: LazyLock<Parts> = LazyLock::new(|| Fake::honest().build(&KEYS));
        let mut parts = HONEST.clone();
        let bytes = match part {
            0 => &mut parts.quote,
            1 => &mut parts.collateral.tcb_info.document,
            2 => &mut parts.collateral.qe_identity.document,
            3 => &mut parts.collateral.root_crl,
            _ => &mut parts.collateral.pck_crl,
        };
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // Line ends of PEM and the case of nothing else carry no meaning: the certificates must then be the same.
        let white_space = part == 0 && HONEST.quote[at].is_ascii_whitespace() && bytes[at].is_ascii_whitespace();
        prop_assert!(white_space || judge(&parts, &Policy::vendor(), NOW).is_err(), "part {part} byte {at} bit {bit}");
    }

    #[test]
    fn any_cut_is_refused(at in any::<prop::sample::Index>()) {
        static HONEST: LazyLock<Parts> = LazyLock::new(|| Fake::honest().build(&KEYS));
        let mut parts = HONEST.clone();
        parts.quote.truncate(at.index(HONEST.quote.len()));
        let outcome = judge(&parts, &Policy::vendor(), NOW);
        prop_assert_eq!(verdict(&outcome), "size");
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut quote = Fake::honest().quote.header;
        quote.extend(&bytes);
        let _ = Evidence::tdx_from_parts(&quote, &[]);
        let _ = Evidence::tdx_from_parts(&bytes, &bytes);
        let _ = adyton_attestation::Collateral::from_json(&bytes);
        let _ = adyton_attestation::Collateral::decode(&bytes);
    }
}
