//! A TDX quote against a policy, every rule a step.

use crate::policy::{Policy, Rule};
use crate::snp::leaf::hex_string;
use crate::tdx::claims::TdxClaims;
use crate::tdx::policy::TdxPolicy;
use crate::tdx::tcb::{Standing, TcbStatus};
use crate::tdx::td_report::TdAttributes;
use crate::verdict::{Reason, StepLog};
use crate::waiver::Waivers;

/// Steps of RTMR0 to RTMR3.
const RTMRS: [&str; 4] = ["rtmr0", "rtmr1", "rtmr2", "rtmr3"];
/// Lowest TDX module of each generation for `strict`: 1.5.34 and 2.0.18, as TEE_TCB_SVN\[1\] and \[0\].
const MODULE_FLOORS: [(u8, u8); 2] = [(1, 0x0f), (2, 0x09)];

/// Looks at everything but platform and report data, which all platforms share.
pub(crate) fn appraise(log: &mut StepLog, policy: &Policy, waivers: &mut Waivers<'_>, claims: &TdxClaims) {
    let tdx = &policy.tdx;
    openness(log, tdx, claims);
    current(log, tdx, waivers, claims);
    module(log, tdx, claims);
    identity(log, policy, claims);
}

/// What the host could do to the TD.
fn openness(log: &mut StepLog, tdx: &TdxPolicy, claims: &TdxClaims) {
    let attributes = claims.attributes();
    let shown = format!("{:#x}", attributes.bits());
    let debug = attributes.under_debug();
    log.rule("td-debug", Reason::Debug, &tdx.debug, &debug, debug);
    let migratable = attributes.bit(TdAttributes::MIGRATABLE);
    log.rule("td-migratable", Reason::PolicyMigrate, &tdx.migratable, &migratable, migratable);
    let sept = attributes.bit(TdAttributes::SEPT_VE_DISABLE);
    log.rule("sept-ve-disable", Reason::SeptVeDisable, &tdx.sept_ve_disable, &sept, sept);
    let servtd_ext = attributes.bit(TdAttributes::SERVTD_EXT);
    log.rule("servtd-ext", Reason::ServiceTd, &tdx.servtd_ext, &servtd_ext, servtd_ext);
    match claims.mr_service_td() {
        Some(bound) => log.digest("service-td", Reason::ServiceTd, &tdx.mr_service_td, &bound),
        // A TD that is bound to a service TD gets a report of the later form.
        None => log.skip("service-td", "a TD report 1.0 has no MRSERVICETD"),
    }
    let reserved = attributes.reserved_bits();
    let detail = format!("{reserved:#x} of {shown}");
    log.rule("td-attributes-reserved", Reason::TdAttributes, &tdx.reserved_attributes, &reserved, detail);
    log.rule("td-attributes", Reason::TdAttributes, &tdx.attributes, &attributes.bits(), shown);
}

/// How current platform, module, quoting enclave and the documents about them are.
fn current(log: &mut StepLog, tdx: &TdxPolicy, waivers: &mut Waivers<'_>, claims: &TdxClaims) {
    for (name, standing) in claims.standings() {
        status(log, waivers, name, standing);
    }
    let (info, identity) = claims.evaluation_numbers();
    let lower = info.min(identity);
    let detail = format!("TCB info {info}, QE identity {identity}");
    log.rule("evaluation-number", Reason::TcbEvaluation, &tdx.evaluation_number, &lower, detail);
}

/// `UpToDate`, or a status whose every advisory is waived by name. Nothing excuses a revoked one.
fn status(log: &mut StepLog, waivers: &mut Waivers<'_>, name: &'static str, standing: &Standing) {
    match standing.status {
        TcbStatus::UpToDate => log.pass(name, standing.to_string()),
        TcbStatus::Revoked => log.fail(name, Reason::TcbRevoked, standing.to_string()),
        // Not looked past: a waived step never counts as a pass.
        _ if waivers.cover(&standing.advisories) => log.skip(name, format!("WAIVED by advisory: {standing}")),
        other => log.fail(name, other.reason(), standing.to_string()),
    }
}

/// Which TDX module.
fn module(log: &mut StepLog, tdx: &TdxPolicy, claims: &TdxClaims) {
    let (module, signer) = claims.mr_seam_and_signer();
    log.digest("mr-signer-seam", Reason::MrSeam, &tdx.mr_signer_seam, &signer);
    log.digest("mr-seam", Reason::MrSeam, &tdx.mr_seam, &module);
    if !tdx.module_floor {
        log.skip("tdx-module-floor", "policy names no lowest TDX module");
        return;
    }
    let svns = [Some(claims.tee_tcb_svn()), claims.tee_tcb_svn_2()];
    let versions: Vec<(u8, u8)> = svns.into_iter().flatten().map(|svn| (svn[1], svn[0])).collect();
    let reached = |&(generation, version): &(u8, u8)| {
        MODULE_FLOORS.iter().any(|(known, floor)| generation == *known && version >= *floor)
    };
    let shown = format!("generation and version {versions:?}, wanted {MODULE_FLOORS:?}");
    if versions.iter().all(reached) {
        log.pass("tdx-module-floor", shown);
    } else {
        log.fail("tdx-module-floor", Reason::TcbMinimum, shown);
    }
}

/// What was measured at launch and after: one of the whole launches, or each register by its own rule.
fn launch(log: &mut StepLog, policy: &Policy, claims: &TdxClaims) {
    let (tdx, mr_td) = (&policy.tdx, claims.mr_td());
    let [rtmr0, rtmr1, rtmr2, _] = claims.rtmrs();
    let whole = tdx.launches.contains(&[mr_td, rtmr0, rtmr1, rtmr2]);
    let among = format!("of a whole launch, one of the {} accepted", tdx.launches.len());
    if whole {
        log.pass("measurement", format!("{} {among}", hex_string(&mr_td)));
    } else {
        log.digest("measurement", Reason::Measurement, &policy.measurement, &mr_td);
    }
    for ((name, rule), rtmr) in RTMRS.into_iter().zip(&tdx.rtmrs).zip(claims.rtmrs()) {
        if whole && name != "rtmr3" {
            log.pass(name, format!("{} {among}", hex_string(&rtmr)));
        } else if name == "rtmr3" && tdx.rtmr3_by_event_log && log.passed("rtmr3-replay") {
            log.pass(name, format!("{}, as the event log has it", hex_string(&rtmr)));
        } else {
            log.digest(name, Reason::Rtmr, rule, &rtmr);
        }
    }
}

/// What was launched, where and by whom.
fn identity(log: &mut StepLog, policy: &Policy, claims: &TdxClaims) {
    let tdx = &policy.tdx;
    log.rule("xfam", Reason::Xfam, &tdx.xfam, &claims.xfam(), format!("{:#x}", claims.xfam()));
    launch(log, policy, claims);
    log.digest("mr-config-id", Reason::HostData, &tdx.mr_config_id, &claims.mr_config_id());
    let (owner, config) = claims.mr_owner_and_config();
    log.digest("mr-owner", Reason::MrOwner, &tdx.mr_owner, &owner);
    log.digest("mr-owner-config", Reason::MrOwner, &tdx.mr_owner_config, &config);
    if policy.chip != Rule::Any && claims.ppid_is_masked() {
        log.fail("chip-allowlist", Reason::ChipAllowlist, "PPID is zero");
    } else {
        log.digest("chip-allowlist", Reason::ChipAllowlist, &policy.chip, &claims.platform_id());
    }
}
