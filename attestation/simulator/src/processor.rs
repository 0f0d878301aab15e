//! The secure processor: keys of one chip, and reports for the guests it launched.

use std::path::Path;

use adyton_attestation::evidence::encode_certificate_table;
use adyton_attestation::{Evidence, REPORT_LEN_BYTES, Rejected, measurement::measure_process};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::EcdsaKeyPair;

use crate::error::SimulatorError;
use crate::setup::{self, TCB};

const SIGNED_LEN_BYTES: usize = 0x2a0;
/// Version 5, the newest that verifiers know.
const REPORT_VERSION: u8 = 5;
/// Genoa B1.
const CPUID: [u8; 3] = [0x19, 0x11, 0x01];
/// Build, minor, major: ABI 1.58.
const FIRMWARE_VERSION: [u8; 3] = [3, 58, 1];
/// SMT allowed, and the bit that must be one.
const GUEST_POLICY: u64 = 0x3_0000;
/// SMT on, ECC on, alias check complete.
const PLATFORM_INFO: u64 = 0b10_0101;
/// The mitigations that the TCB table asks of Genoa.
const MITIGATIONS: u64 = 0b111;

/// What the processor knows of one guest: everything in a report but REPORT_DATA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchContext {
    /// Launch measurement.
    pub measurement: [u8; 48],
    /// SHA-256 of the launch document.
    pub host_data: [u8; 32],
    /// One for each launch.
    pub report_id: [u8; 32],
}

impl LaunchContext {
    /// The context of `program` started with `argv` and `document`, with a fresh report id.
    ///
    /// # Errors
    /// [`SimulatorError::Crypto`] if the system has no randomness.
    pub fn new<A: AsRef<[u8]>>(program: &[u8], document: &[u8], argv: &[A]) -> Result<Self, SimulatorError> {
        Self::measured(measure_process(program, document, argv), document)
    }

    /// The context of what was measured already and is started with `document`, with a fresh report id.
    ///
    /// # Errors
    /// As [`LaunchContext::new`].
    pub fn measured(measurement: [u8; 48], document: &[u8]) -> Result<Self, SimulatorError> {
        let mut report_id = [0; 32];
        SystemRandom::new().fill(&mut report_id).map_err(|_| SimulatorError::Crypto("draw a report id"))?;
        let mut host_data = [0; 32];
        host_data.copy_from_slice(digest(&SHA256, document).as_ref());
        Ok(Self { measurement, host_data, report_id })
    }
}

/// One simulated chip with its certificates.
pub struct Simulator {
    chip_key: EcdsaKeyPair,
    chip_id: [u8; 64],
    root: Vec<u8>,
    certificate_table: Vec<u8>,
}

impl Simulator {
    /// Loads the root that [`setup`](crate::setup()) made in `dir`.
    ///
    /// # Errors
    /// [`SimulatorError::NotSetUp`] if a file is missing, [`SimulatorError::KeyFile`] if one is damaged.
    pub fn load(dir: &Path) -> Result<Self, SimulatorError> {
        let file = |name| setup::read(dir, name);
        let damaged = |name| SimulatorError::KeyFile(dir.join(name));
        let chip_id = file(setup::CHIP_ID_FILE)?;
        let chip_id = chip_id.as_slice().try_into().map_err(|_| damaged(setup::CHIP_ID_FILE))?;
        let pkcs8 = file(setup::CHIP_KEY_FILE)?;
        let chip_key = setup::load_chip_key(&pkcs8).ok_or_else(|| damaged(setup::CHIP_KEY_FILE))?;
        let root = file(setup::ROOT_FILE)?.to_vec();
        let certificate_table = encode_certificate_table(
            &root,
            &file(setup::INTERMEDIATE_FILE)?,
            &file(setup::CHIP_CERTIFICATE_FILE)?,
            Some(&file(setup::REVOCATION_LIST_FILE)?),
        );
        Ok(Self { chip_key, chip_id, root, certificate_table })
    }

    /// A report for `context` that carries `report_data`: 1184 bytes of the real format, signed by the chip.
    ///
    /// # Errors
    /// [`SimulatorError::Crypto`] if the system has no randomness.
    pub fn report(&self, context: &LaunchContext, report_data: &[u8; 64]) -> Result<Vec<u8>, SimulatorError> {
        let mut report = self.unsigned_report(context, report_data);
        sign(&self.chip_key, &mut report)?;
        Ok(report)
    }

    fn unsigned_report(&self, context: &LaunchContext, report_data: &[u8; 64]) -> Vec<u8> {
        let mut report = vec![0; REPORT_LEN_BYTES];
        let tcb = TCB.to_word();
        let fields: [(usize, &[u8]); 18] = [
            (0x000, &[REPORT_VERSION]),
            (0x008, &GUEST_POLICY.to_le_bytes()),
            (0x034, &[1]), // SIGNATURE_ALGO: ECDSA P-384 with SHA-384
            (0x038, &tcb), // CURRENT_TCB
            (0x040, &PLATFORM_INFO.to_le_bytes()),
            (0x050, report_data),
            (0x090, &context.measurement),
            (0x0c0, &context.host_data),
            (0x140, &context.report_id),
            (0x160, &[0xff; 32]), // REPORT_ID_MA: no migration agent
            (0x180, &tcb),        // REPORTED_TCB
            (0x188, &CPUID),
            (0x1a0, &self.chip_id),
            (0x1e0, &tcb), // COMMITTED_TCB
            (0x1e8, &FIRMWARE_VERSION),
            (0x1ec, &FIRMWARE_VERSION),
            (0x1f0, &tcb), // LAUNCH_TCB
            (0x1f8, &[MITIGATIONS.to_le_bytes(), MITIGATIONS.to_le_bytes()].concat()),
        ];
        for (offset, value) in fields {
            report[offset..offset + value.len()].copy_from_slice(value);
        }
        report
    }

    /// The report of [`Simulator::report`] with the certificate table, as Evidence.
    ///
    /// # Errors
    /// As [`Simulator::report`].
    pub fn evidence(
        &self,
        context: &LaunchContext,
        report_data: &[u8; 64],
    ) -> Result<Evidence, SimulatorError> {
        let report = self.report(context, report_data)?;
        Evidence::simulated_from_parts(&report, &self.certificate_table)
            .map_err(|_: Rejected| SimulatorError::Crypto("make a well-formed report"))
    }

    /// The certificate table that goes beside each report: root, intermediate, chip and revocation list.
    #[must_use]
    pub fn certificate_table(&self) -> &[u8] {
        &self.certificate_table
    }

    /// The root certificate, DER, for `TrustAnchors::dangerous_simulator`.
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        &self.root
    }

    /// CHIP_ID of the simulated chip.
    #[must_use]
    pub const fn chip_id(&self) -> &[u8; 64] {
        &self.chip_id
    }
}

/// Signs the first 0x2A0 bytes of a report; R and S go in little-endian, 72 bytes each.
pub(crate) fn sign(chip_key: &EcdsaKeyPair, report: &mut [u8]) -> Result<(), SimulatorError> {
    let signature = chip_key
        .sign(&SystemRandom::new(), &report[..SIGNED_LEN_BYTES])
        .map_err(|_| SimulatorError::Crypto("sign a report"))?;
    let (r, s) = signature.as_ref().split_at(48);
    for (scalar, offset) in [(r, SIGNED_LEN_BYTES), (s, SIGNED_LEN_BYTES + 72)] {
        report[offset..offset + 48].copy_from_slice(scalar);
        report[offset..offset + 48].reverse();
    }
    Ok(())
}
