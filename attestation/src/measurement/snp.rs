//! The SNP launch measurement of a virtual machine, computed from its files.
//!
//! Flow, in the order a hypervisor adds pages: the firmware below 4 GiB; in SVSM mode the SVSM image below that; the
//! sections the firmware (or the SVSM) asks for, among them the page with the hashes of kernel, initrd and command
//! line; one save area for each vCPU. [`measure`] returns the digest and the steps that led to it, for people to see.
//!
//! Published calculations disagree about [`Vmm::Ec2`]: the reset state of Amazon's hypervisor was corrected in one of
//! them (CS 0x9a for the first vCPU, SS 0x92, TR 0x83, for all vCPUs the CPUID page after the other sections), the
//! other keeps earlier values. This module takes the corrected ones, and [`Measurement::note`] says so: compare with
//! the report of a real instance before a policy lists such a digest.

use ring::digest::{SHA256, digest};
use thiserror::Error;

use super::chain::{LaunchDigest, PAGE_LEN_BYTES, PageType};
use super::ovmf::{Firmware, FirmwareError, Section, SectionKind, guid};
use super::vmsa;

/// KVM's own limit on vCPUs.
pub const MAX_VCPUS: u32 = 4096;
const FOUR_GIB: u64 = 1 << 32;
/// Where the processor records every save area: the address -1 cut to a page and to 48 bits.
const VMSA_GPA: u64 = 0xffff_ffff_f000;

/// Which hypervisor launches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Vmm {
    /// QEMU with KVM.
    #[default]
    Qemu,
    /// Amazon EC2; see the module about how sure this is.
    Ec2,
    /// Google Compute Engine.
    Gce,
}

impl Vmm {
    /// By its name on the command line: `qemu`, `ec2` or `gce`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "qemu" => Self::Qemu,
            "ec2" => Self::Ec2,
            "gce" => Self::Gce,
            _ => return None,
        })
    }
}

/// CPUID Fn0000_0001_EAX of the vCPU; a hypervisor that puts it in RDX makes it part of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuSignature(pub u32);

/// QEMU's CPU models, without their version: family, model, stepping, number of versions.
const VCPU_MODELS: [(&str, u32, u32, u32, u32); 5] = [
    ("EPYC", 23, 1, 2, 5),
    ("EPYC-Rome", 23, 49, 0, 5),
    ("EPYC-Milan", 25, 1, 1, 3),
    ("EPYC-Genoa", 25, 17, 0, 2),
    ("EPYC-Turin", 26, 0, 0, 2),
];

impl VcpuSignature {
    /// Of QEMU's CPU model, such as `EPYC-v4` or `EPYC-Genoa`.
    #[must_use]
    pub fn from_model_name(name: &str) -> Option<Self> {
        if name == "EPYC-IBPB" {
            return Self::from_model_name("EPYC-v2");
        }
        let (model, version) = match name.rsplit_once("-v") {
            Some((model, version)) => {
                (model, version.parse().ok().filter(|v: &u32| version == v.to_string())?)
            }
            None => (name, 1),
        };
        let (_, family, model, stepping, versions) =
            *VCPU_MODELS.iter().find(|(known, ..)| *known == model)?;
        (1..=versions).contains(&version).then(|| Self::from_parts(family, model, stepping)).flatten()
    }

    /// Of displayed family (at most 270), model (at most 255) and stepping (at most 15); 25481, Fn0000_0001_EAX.
    #[must_use]
    pub fn from_parts(family: u32, model: u32, stepping: u32) -> Option<Self> {
        if family > 0x0f + 0xff || model > 0xff || stepping > 0x0f {
            return None;
        }
        let (base_family, extended_family) = (family.min(0x0f), family.saturating_sub(0x0f));
        let (base_model, extended_model) = (model & 0x0f, model >> 4);
        Some(Self(
            extended_family << 20 | extended_model << 16 | base_family << 8 | base_model << 4 | stepping,
        ))
    }
}

/// A kernel the hypervisor loads, measured by way of its hashes.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'a> {
    /// The file.
    pub kernel: &'a [u8],
    /// The file, empty if there is none.
    pub initrd: &'a [u8],
    /// Without the NUL that ends it in memory.
    pub cmdline: &'a str,
}

/// An SVSM under the firmware.
#[derive(Clone, Copy, Debug)]
pub struct Svsm<'a> {
    /// The image.
    pub image: &'a [u8],
    /// Size of the variable store between it and the firmware, 0 if the firmware has none of its own.
    pub vars_len_bytes: u64,
}

/// Everything that decides the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The firmware image, as the hypervisor loads it below 4 GiB.
    pub firmware: &'a [u8],
    /// SVSM mode.
    pub svsm: Option<Svsm<'a>>,
    /// A kernel loaded by the hypervisor.
    pub kernel: Option<Kernel<'a>>,
    /// How many vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpus: u32,
    /// Which model of vCPU.
    pub vcpu_signature: VcpuSignature,
    /// SEV_FEATURES of the guest; bit 0, SNP active, is always set in a real launch.
    pub guest_features: u64,
    /// Who launches.
    pub vmm: Vmm,
}

/// Why there is no measurement.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The firmware cannot be launched.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The SVSM cannot be launched.
    #[error("SVSM: {0}")]
    Svsm(FirmwareError),
    /// Out of range.
    #[error("{0} vCPUs: give 1 to {MAX_VCPUS}")]
    Vcpus(u32),
    /// The kernel would run unmeasured.
    #[error(
        "this firmware has no kernel hashes section: it cannot measure a kernel, use one built for AmdSev"
    )]
    KernelNotMeasured,
    /// The table does not fit where the firmware wants it.
    #[error("the SEV hashes table at {0:#x} does not fit its page: the firmware is damaged")]
    HashesTable(u32),
    /// More than one vCPU, but nowhere to start them.
    #[error("the firmware gives no start address for further vCPUs: launch with one")]
    NoResetAddress,
    /// SVSM mode fixes what was asked for differently.
    #[error("SVSM mode: {0}")]
    SvsmMode(&'static str),
}

/// One run of pages that was added to the digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was added.
    pub name: &'static str,
    /// Guest-physical address of its first page.
    pub gpa: u64,
    /// How many pages of 4096 bytes.
    pub pages: usize,
    /// What of a page was hashed.
    pub hashed: &'static str,
    /// Where that came from.
    pub source: &'static str,
    /// The launch digest that these pages alone would make.
    pub input: [u8; 48],
    /// The launch digest after it.
    pub digest: [u8; 48],
}

/// A launch measurement and how it came about.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// MEASUREMENT of the report; 56860 1.58, table 23.
    pub digest: [u8; 48],
    /// In the order of the launch.
    pub steps: Vec<Step>,
    /// What a reader should know before trusting it.
    pub note: Option<&'static str>,
}

const EC2_NOTE: &str = "published calculations disagree about EC2; this one uses the corrected reset state (CS 0x9a of \
                        the first vCPU, SS 0x92, TR 0x83): compare with a report of a real instance first";
const SVSM_NOTE: &str = "only one calculation of SVSM mode is published; this one agrees with it (x87 control word zero): \
                         compare with a report of a real guest first";

/// Computes the measurement of `launch`.
///
/// # Errors
/// `Firmware` and `Svsm` for images that cannot be launched; `KernelNotMeasured` and `HashesTable` if the firmware has
/// no place for the hashes of the kernel; `Vcpus`, `NoResetAddress` and `SvsmMode` for what no hypervisor launches.
pub fn measure(launch: &Launch<'_>) -> Result<Measurement, LaunchError> {
    if !(1..=MAX_VCPUS).contains(&launch.vcpus) {
        return Err(LaunchError::Vcpus(launch.vcpus));
    }
    let firmware = Firmware::parse(launch.firmware)?;
    let mut chain = Chain::default();
    let firmware_gpa = FOUR_GIB - launch.firmware.len() as u64; // the cap is far below 4 GiB
    chain.add_image("firmware", firmware_gpa, &firmware, "the firmware file");
    if let Some(svsm) = &launch.svsm {
        add_svsm(&mut chain, launch, svsm, firmware_gpa)?;
        return Ok(chain.finish(Some(SVSM_NOTE)));
    }
    let hashes_page = launch.kernel.as_ref().map(|kernel| hashes_page(&firmware, kernel)).transpose()?;
    add_sections(&mut chain, &firmware, hashes_page.as_ref(), launch.vmm);
    add_vcpus(&mut chain, launch, firmware.reset_address()?)?;
    Ok(chain.finish((launch.vmm == Vmm::Ec2).then_some(EC2_NOTE)))
}

/// The SVSM image lies directly below the firmware (and its variables), and is what the guest enters.
fn add_svsm(chain: &mut Chain, launch: &Launch<'_>, svsm: &Svsm<'_>, end: u64) -> Result<(), LaunchError> {
    if launch.vmm != Vmm::Qemu {
        return Err(LaunchError::SvsmMode("only QEMU launches an SVSM this way, use qemu"));
    }
    if launch.kernel.is_some() {
        return Err(LaunchError::SvsmMode("a kernel is not measured, leave it out"));
    }
    if launch.guest_features != vmsa::SNP_ACTIVE {
        return Err(LaunchError::SvsmMode("the guest features are fixed to 0x1"));
    }
    let image = Firmware::parse(svsm.image).map_err(LaunchError::Svsm)?;
    let below = end.checked_sub(svsm.vars_len_bytes).and_then(|end| end.checked_sub(svsm.image.len() as u64));
    let gpa = below.ok_or(LaunchError::SvsmMode("the variable store leaves no room below the firmware"))?;
    if !gpa.is_multiple_of(PAGE_LEN_BYTES as u64) {
        return Err(LaunchError::SvsmMode("the variable store is not whole pages"));
    }
    let entry = gpa + u64::from(image.svsm_entry_offset().map_err(LaunchError::Svsm)?); // below 2^33
    chain.add_image("SVSM", gpa, &image, "the SVSM file");
    add_sections(chain, &image, None, launch.vmm);
    let page = vmsa::svsm(entry, launch.vcpu_signature.0);
    chain.add_vcpus("VMSA of all vCPUs", &page, launch.vcpus as usize);
    Ok(())
}

fn add_sections(
    chain: &mut Chain,
    image: &Firmware<'_>,
    hashes_page: Option<&[u8; PAGE_LEN_BYTES]>,
    vmm: Vmm,
) {
    // Amazon's hypervisor adds the CPUID page after everything else.
    let cpuid_last = |section: &&Section| vmm == Vmm::Ec2 && section.kind == SectionKind::Cpuid;
    let (last, first): (Vec<&Section>, Vec<&Section>) = image.sections().iter().partition(cpuid_last);
    for section in first.into_iter().chain(last) {
        match section.kind {
            SectionKind::SecMem if vmm == Vmm::Gce => {
                chain.add_section("SEC memory", PageType::Unmeasured, section);
            }
            SectionKind::SecMem => chain.add_section("SEC memory", PageType::Zero, section),
            SectionKind::Secrets => chain.add_section("secrets page", PageType::Secrets, section),
            SectionKind::Cpuid => chain.add_section("CPUID page", PageType::Cpuid, section),
            SectionKind::SvsmCaa => chain.add_section("SVSM calling area", PageType::Zero, section),
            SectionKind::KernelHashes => match hashes_page {
                Some(page) => chain.add_hashes(section.gpa, page),
                None => chain.add_section("kernel hashes (no kernel)", PageType::Zero, section),
            },
        }
    }
}

fn add_vcpus(chain: &mut Chain, launch: &Launch<'_>, reset_address: u32) -> Result<(), LaunchError> {
    let page = |address| vmsa::real_mode(address, launch.vcpu_signature.0, launch.guest_features, launch.vmm);
    chain.add_vcpus("VMSA of the first vCPU", &page(vmsa::RESET_VECTOR), 1);
    let further = launch.vcpus as usize - 1; // at least one, asserted by the caller
    if further > 0 {
        if reset_address == 0 {
            return Err(LaunchError::NoResetAddress);
        }
        chain.add_vcpus("VMSA of the further vCPUs", &page(reset_address), further);
    }
    Ok(())
}

/// Header and entries of the table: GUID, size of it all in 2 bytes, contents.
const TABLE_HEADER_LEN_BYTES: u16 = 18;
const TABLE_ENTRY_LEN_BYTES: u16 = TABLE_HEADER_LEN_BYTES + 32;
const TABLE_LEN_BYTES: u16 = TABLE_HEADER_LEN_BYTES + 3 * TABLE_ENTRY_LEN_BYTES;
/// In memory it is padded to a multiple of 16 bytes.
const PADDED_TABLE_LEN_BYTES: usize = TABLE_LEN_BYTES.next_multiple_of(16) as usize;
const TABLE_GUID: [u8; 16] = guid(0x9438d606, 0x4f22, 0x4cc9, 0xb479_a793_d411_fd21);
const CMDLINE_GUID: [u8; 16] = guid(0x97d02dd8, 0xbd20, 0x4c94, 0xaa78_e771_4d36_ab2a);
const INITRD_GUID: [u8; 16] = guid(0x44baf731, 0x3a2f, 0x4bd7, 0x9af1_41e2_9169_781d);
const KERNEL_GUID: [u8; 16] = guid(0x4de79437, 0xabd2, 0x427f, 0xb835_d5b1_72d2_045b);

/// The page with the hashes at the place in it the firmware chose.
fn hashes_page(firmware: &Firmware<'_>, kernel: &Kernel<'_>) -> Result<[u8; PAGE_LEN_BYTES], LaunchError> {
    if !firmware.sections().iter().any(|section| section.kind == SectionKind::KernelHashes) {
        return Err(LaunchError::KernelNotMeasured);
    }
    let gpa = firmware.hashes_table_gpa()?;
    let start = gpa as usize % PAGE_LEN_BYTES;
    let mut page = [0; PAGE_LEN_BYTES];
    let room = page.get_mut(start..start + PADDED_TABLE_LEN_BYTES).ok_or(LaunchError::HashesTable(gpa))?;
    let table = hashes_table(kernel);
    room[..table.len()].copy_from_slice(&table);
    Ok(page)
}

fn hashes_table(kernel: &Kernel<'_>) -> Vec<u8> {
    let mut cmdline = kernel.cmdline.as_bytes().to_vec();
    cmdline.push(0);
    let mut table = Vec::with_capacity(PADDED_TABLE_LEN_BYTES);
    table.extend_from_slice(&TABLE_GUID);
    table.extend_from_slice(&TABLE_LEN_BYTES.to_le_bytes());
    for (id, bytes) in
        [(CMDLINE_GUID, &cmdline[..]), (INITRD_GUID, kernel.initrd), (KERNEL_GUID, kernel.kernel)]
    {
        table.extend_from_slice(&id);
        table.extend_from_slice(&TABLE_ENTRY_LEN_BYTES.to_le_bytes());
        table.extend_from_slice(digest(&SHA256, bytes).as_ref());
    }
    table
}

/// The digest under way and the steps so far.
#[derive(Default)]
struct Chain {
    digest: LaunchDigest,
    /// Of the step under way, alone.
    input: LaunchDigest,
    steps: Vec<Step>,
}

impl Chain {
    fn each(&mut self, add: impl Fn(&mut LaunchDigest)) {
        add(&mut self.digest);
        add(&mut self.input);
    }

    fn add_image(&mut self, name: &'static str, gpa: u64, image: &Firmware<'_>, source: &'static str) {
        self.each(|digest| digest.add_bytes(gpa, image.bytes()));
        self.note(name, gpa, image.bytes().len() / PAGE_LEN_BYTES, "bytes of each page", source);
    }

    fn add_section(&mut self, name: &'static str, page_type: PageType, section: &Section) {
        self.each(|digest| digest.add_without_contents(page_type, section.gpa, section.pages));
        let hashed = match page_type {
            PageType::Zero => "address, as zeros",
            PageType::Unmeasured => "address only, contents unmeasured",
            _ => "address, contents are the processor's",
        };
        self.note(name, section.gpa, section.pages, hashed, "SEV metadata");
    }

    fn add_hashes(&mut self, gpa: u64, page: &[u8; PAGE_LEN_BYTES]) {
        self.each(|digest| digest.add_page(PageType::Normal, gpa, page));
        self.note(
            "kernel hashes",
            gpa,
            1,
            "SHA-256 of cmdline, initrd, kernel",
            "SEV metadata and the files",
        );
    }

    fn add_vcpus(&mut self, name: &'static str, page: &[u8; PAGE_LEN_BYTES], count: usize) {
        for _ in 0..count {
            self.each(|digest| digest.add_page(PageType::Vmsa, VMSA_GPA, page));
        }
        self.note(name, VMSA_GPA, count, "registers at the start", "hypervisor, vCPU type, features");
    }

    fn note(
        &mut self,
        name: &'static str,
        gpa: u64,
        pages: usize,
        hashed: &'static str,
        source: &'static str,
    ) {
        let input = core::mem::take(&mut self.input).value();
        self.steps.push(Step { name, gpa, pages, hashed, source, input, digest: self.digest.value() });
    }

    fn finish(self, note: Option<&'static str>) -> Measurement {
        Measurement { digest: self.digest.value(), steps: self.steps, note }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ovmf::tests::{SECTIONS, image, svsm_info};
    use super::*;
    use proptest::prelude::*;

    const KERNEL: Kernel<'_> = Kernel { kernel: b"kernel", initrd: b"initrd", cmdline: "quiet" };

    fn launch(firmware: &[u8]) -> Launch<'_> {
        Launch {
            firmware,
            svsm: None,
            kernel: Some(KERNEL),
            vcpus: 2,
            vcpu_signature: VcpuSignature::from_model_name("EPYC-v4").unwrap(),
            guest_features: 1,
            vmm: Vmm::Qemu,
        }
    }

    #[test]
    fn signatures() {
        let of = |name| VcpuSignature::from_model_name(name).map(|signature| signature.0);
        assert_eq!(of("EPYC"), Some(0x0080_0f12));
        assert_eq!(of("EPYC-IBPB"), of("EPYC"));
        assert_eq!(of("EPYC-Rome-v3"), Some(0x0083_0f10));
        assert_eq!(of("EPYC-Milan"), Some(0x00a0_0f11));
        assert_eq!(of("EPYC-Genoa-v1"), Some(0x00a1_0f10));
        assert_eq!(of("EPYC-Turin"), Some(0x00b0_0f00));
        for name in ["", "epyc", "EPYC-v0", "EPYC-v01", "EPYC-v+1", "EPYC-v9", "EPYC-Siena", "EPYC-v"] {
            assert_eq!(of(name), None, "{name}");
        }
        assert_eq!(VcpuSignature::from_parts(6, 0x3c, 3), Some(VcpuSignature(0x3_06c3)));
        assert_eq!(VcpuSignature::from_parts(271, 0, 0), None);
        assert_eq!(VcpuSignature::from_parts(25, 256, 0), None);
        assert_eq!(VcpuSignature::from_parts(25, 0, 16), None);
    }

    #[test]
    fn every_input_is_measured() {
        let firmware = image(2, &SECTIONS, &[]);
        let base = launch(&firmware);
        let with = |kernel| Launch { kernel: Some(kernel), ..base };
        let launches = [
            base,
            Launch { kernel: None, ..base },
            with(Kernel { kernel: b"kernel2", ..KERNEL }),
            with(Kernel { initrd: b"", ..KERNEL }),
            with(Kernel { cmdline: "quiet ", ..KERNEL }),
            Launch { vcpus: 1, ..base },
            Launch { vcpus: 3, ..base },
            Launch { vcpu_signature: VcpuSignature(0x00a1_0f10), ..base },
            Launch { guest_features: 0x21, ..base },
            Launch { vmm: Vmm::Ec2, ..base },
            Launch { vmm: Vmm::Gce, ..base },
        ];
        let digests: std::collections::BTreeSet<_> =
            launches.iter().map(|launch| measure(launch).unwrap().digest).collect();
        assert_eq!(digests.len(), launches.len());
    }

    /// As `sev-snp-measure` 0.0.13 computes them for the same synthetic images.
    #[test]
    fn each_hypervisor_and_svsm_agree_with_another_program() {
        let firmware = image(2, &SECTIONS, &[]);
        let vcpu_signature = VcpuSignature::from_model_name("EPYC-Genoa").unwrap();
        let base = Launch { vcpus: 3, vcpu_signature, ..launch(&firmware) };
        let digest = |launch| hex::encode(measure(&launch).unwrap().digest);
        for (vmm, expected) in [
            (
                Vmm::Qemu,
                "51777515b75ed8e49a6387a8d7362c38ef6cf8433fcd2ee5c164c2c51208841ff041f61250cf476d451ce81365a16b34",
            ),
            (
                Vmm::Ec2,
                "c852bfda5c846ad8e5d380fbc543a79abe29e9ff84eeb852f2c40f433b47886d2834e9e8c5b9279c6203049f37ad9812",
            ),
            (
                Vmm::Gce,
                "443bfecdbbc710127fac1eca9091f3f2ca8df9972e85c5356754c98602ecb31d52aa1bf970d479c3c14b159ab13745c0",
            ),
        ] {
            assert_eq!(digest(Launch { vmm, guest_features: 0x21, ..base }), expected, "{vmm:?}");
        }
        let sections = [&SECTIONS[..3], &[(0x90_0000, 0x1000, 4)]].concat();
        let svsm_image = image(1, &sections, &svsm_info(0x10));
        for (vars_len_bytes, expected) in [
            (
                0,
                "6a22299bc3aeddc398c1e6241d9eef5927f5bc85a8a529aa9ca993650fd5067a5753b1cb4488f632e96b049dcd56209a",
            ),
            (
                0x2_0000,
                "6f8802efa687f63f9ad706f4ce15abc777c3bdd58b49bfdd8db52d5a0779fbbbbd90afb84026dd39390c9b028a31fb9d",
            ),
        ] {
            let svsm = Some(Svsm { image: &svsm_image, vars_len_bytes });
            assert_eq!(digest(Launch { svsm, kernel: None, ..base }), expected, "{vars_len_bytes:#x}");
        }
    }

    #[test]
    fn steps_tell_the_order() {
        let firmware = image(2, &SECTIONS, &[]);
        let names = |vmm| -> Vec<_> {
            measure(&Launch { vmm, ..launch(&firmware) })
                .unwrap()
                .steps
                .iter()
                .map(|step| step.name)
                .collect()
        };
        let vcpus = ["VMSA of the first vCPU", "VMSA of the further vCPUs"];
        let qemu = ["firmware", "SEC memory", "secrets page", "CPUID page", "kernel hashes"];
        assert_eq!(names(Vmm::Qemu), [&qemu[..], &vcpus].concat());
        let ec2 = ["firmware", "SEC memory", "secrets page", "kernel hashes", "CPUID page"];
        assert_eq!(names(Vmm::Ec2), [&ec2[..], &vcpus].concat());
    }

    #[test]
    fn what_cannot_be_launched_is_refused() {
        let firmware = image(2, &SECTIONS, &[]);
        let error = |launch: &Launch<'_>| measure(launch).unwrap_err();
        let base = launch(&firmware);
        for vcpus in [0, MAX_VCPUS + 1] {
            assert_eq!(error(&Launch { vcpus, ..base }), LaunchError::Vcpus(vcpus));
        }
        let unmeasured = image(2, &SECTIONS[..3], &[]);
        assert_eq!(error(&launch(&unmeasured)), LaunchError::KernelNotMeasured);
        let svsm_image = image(1, &SECTIONS[..3], &svsm_info(0x10));
        let svsm = Some(Svsm { image: &svsm_image, vars_len_bytes: 0 });
        let refused = |launch| assert!(matches!(error(&launch), LaunchError::SvsmMode(_)), "{launch:?}");
        refused(Launch { svsm, ..base });
        refused(Launch { svsm, kernel: None, guest_features: 0x21, ..base });
        refused(Launch { svsm, kernel: None, vmm: Vmm::Gce, ..base });
        for vars_len_bytes in [1, u64::MAX] {
            refused(Launch { svsm: Some(Svsm { image: &svsm_image, vars_len_bytes }), kernel: None, ..base });
        }
        let no_entry = Svsm { image: &firmware, vars_len_bytes: 0 };
        assert!(matches!(
            error(&Launch { svsm: Some(no_entry), kernel: None, ..base }),
            LaunchError::Svsm(_)
        ));
    }

    proptest! {
        #[test]
        fn one_changed_byte_of_the_firmware_never_gives_the_same_digest(
            at in any::<prop::sample::Index>(), bit in 0..8_u32,
        ) {
            let good = image(2, &SECTIONS, &[]);
            let mut bad = good.clone();
            bad[at.index(good.len())] ^= 1 << bit;
            let before = measure(&launch(&good)).unwrap().digest;
            if let Ok(after) = measure(&launch(&bad)) {
                prop_assert_ne!(before, after.digest);
            }
        }
    }
}
