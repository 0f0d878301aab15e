//! From the attestation key to the TD: quote signature, module, TCB.

use std::sync::Arc;

use crate::cache::Kept;
use crate::evidence::Endorsements;
use crate::tdx::certify::{Certified, CertifiedKey, certify, verify_p256};
use crate::tdx::claims::TdxClaims;
use crate::tdx::collateral::Collateral;
use crate::tdx::quote::Quote;
use crate::time::Time;
use crate::verdict::{Finding, Halt, Reason, StepLog};
use crate::x509::Certificate;

/// Verifies `quote` with the caller's collateral, or else with what came beside it.
pub(crate) fn verify(
    log: &mut StepLog,
    quote: Quote,
    supplied: Option<&Collateral>,
    anchors: &[Certificate],
    endorsements: &Endorsements,
    now: Time,
    cache: Option<&mut Kept<CertifiedKey, Certified>>,
) -> Result<TdxClaims, Halt> {
    let collateral = endorsements.tdx_collateral.as_ref().or(supplied);
    let collateral = collateral.map(|collateral| (collateral, "collateral supplied".to_owned()));
    let missing =
        "no collateral was supplied: TCB info, QE identity, their issuers, and both revocation lists";
    let collateral = collateral.ok_or_else(|| Finding::new(Reason::EndorsementMissing, missing));
    let collateral = log.step("endorsements", collateral)?;
    let certified = certified(log, anchors, &quote, collateral, now, cache)?;

    let signed = verify_quote(&quote).map(|()| ((), "ECDSA P-256 SHA-256 by the attestation key".to_owned()));
    log.step("quote-signature", signed)?;
    let td = quote.td_report();
    let reserved = quote.refuse_reserved().and_then(|()| td.refuse_contradictions());
    log.step("reserved-fields", reserved.map(|()| ((), "as the specification says".to_owned())))?;
    let module = certified.tcb_info.refuse_other_module(&td).map(|()| ((), "signed by Intel".to_owned()));
    log.step("tdx-module", module)?;

    let (info, pck) = (&certified.tcb_info, &certified.pck);
    let launch = info.standing(pck, &td.tee_tcb_svn());
    let launch =
        log.step("tcb-level", launch.map(|standing| (standing, "a TCB level is reached".to_owned())))?;
    let current = match td.tee_tcb_svn_2() {
        None => None,
        // After an update that kept TDs running, what runs now must be known too.
        Some(svn) => {
            let current = info.standing(pck, &svn);
            let current = current.map(|standing| (standing, "what runs now reaches one".to_owned()));
            Some(log.step("tcb-level-now", current)?)
        }
    };
    Ok(TdxClaims { quote, certified, launch, current })
}

/// Collateral and endorsing part: from the cache, or verified now and kept.
fn certified(
    log: &mut StepLog,
    anchors: &[Certificate],
    quote: &Quote,
    collateral: &Collateral,
    now: Time,
    cache: Option<&mut Kept<CertifiedKey, Certified>>,
) -> Result<Arc<Certified>, Halt> {
    let Some(cache) = cache else {
        return certify(log, anchors, quote, collateral, now).map(Arc::new);
    };
    let same = |key: &CertifiedKey| key.endorsement == quote.endorsement() && key.collateral == *collateral;
    if let Some((certified, steps)) = cache.find(anchors, same, now) {
        log.extend(steps);
        return Ok(certified);
    }
    let before = log.len();
    let certified = Arc::new(certify(log, anchors, quote, collateral, now)?);
    let key = CertifiedKey { endorsement: quote.endorsement().to_vec(), collateral: collateral.clone() };
    cache.keep(key, &certified.root, certified.window, (&certified, log.since(before)), now);
    Ok(certified)
}

/// The attestation key's signature over header and body.
fn verify_quote(quote: &Quote) -> Result<(), Finding> {
    let mut point = [4; 65];
    let (_, coordinates) = point.split_at_mut(1);
    coordinates.copy_from_slice(quote.attestation_key());
    verify_p256(&point, quote.signed_bytes(), quote.signature())
        .map_err(|()| Finding::new(Reason::QuoteSignature, "the attestation key did not sign the quote"))
}
