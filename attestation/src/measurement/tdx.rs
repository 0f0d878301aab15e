//! The measurements of a TD, computed from its files: MRTD, and RTMR0 to RTMR3 as far as the files say.
//!
//! Flow: MRTD from the firmware ([`super::tdvf`]). RTMR0 from what the hypervisor tells the firmware and what the
//! firmware takes from its variables; RTMR1 from a kernel that the hypervisor hands over; RTMR2 from its load options
//! and RAM disk, which the kernel's EFI stub measures. RTMR3 belongs to the running system and starts as zero.
//!
//! The events and their order are those of edk2's OVMF started by QEMU with a kernel. Where builds or hypervisors differ,
//! the difference is an input, and nothing is guessed: without ACPI files there is no RTMR0, without a kernel no RTMR1
//! and RTMR2. A system that starts from a disk (shim, GRUB) is read from its event log instead.

use thiserror::Error;

use super::acpi;
use super::authenticode::authenticode_sha384;
use super::linux_boot::{load_options, patched};
use super::mrtd::{Extended, mrtd};
use super::ovmf::guid;
use super::td_hob::td_hob;
use super::tdvf::{Section, SectionKind, TdvfError, sections};
use crate::eventlog::{extend, sha384};

pub use super::acpi::AcpiFiles;
pub use super::linux_boot::{InitrdArgument, KernelForm};
pub use super::mrtd::PageOrder;

/// Vendor GUIDs of UEFI 2.10: EFI_GLOBAL_VARIABLE (3.3) and EFI_IMAGE_SECURITY_DATABASE (32.6.1).
const GLOBAL_VARIABLE: [u8; 16] = guid(0x8be4_df61, 0x93ca, 0x11d2, 0xaa0d_00e0_9803_2b8c);
const SECURITY_DATABASE: [u8; 16] = guid(0xd719_b2cb, 0x3d3a, 0x4596, 0xa3bc_dad0_0e67_656f);
/// EV_SEPARATOR without an error.
const SEPARATOR: [u8; 4] = [0; 4];
const CALLING: &[u8] = b"Calling EFI Application from Boot Option";
const EXIT: &[u8] = b"Exit Boot Services Invocation";
const EXIT_DONE: &[u8] = b"Exit Boot Services Returned with Success";

/// What the hypervisor tells the firmware of the memory.
#[derive(Clone, Copy, Debug)]
pub enum TdHob<'a> {
    /// As QEMU writes it for a guest of so much memory.
    Memory(u64),
    /// The bytes themselves, without the end marker.
    Bytes(&'a [u8]),
}

/// The variables that firmware measures before it starts anything; empty where they are not set.
#[derive(Clone, Copy, Debug, Default)]
pub struct SecureBoot<'a> {
    /// `SecureBoot`: empty if firmware does not know the feature, else one byte.
    pub secure_boot: &'a [u8],
    /// `PK`, the platform key.
    pub pk: &'a [u8],
    /// `KEK`, the key exchange keys.
    pub kek: &'a [u8],
    /// `db`, what may be started.
    pub db: &'a [u8],
    /// `dbx`, what may not.
    pub dbx: &'a [u8],
}

/// The register of the separator that firmware measures right before it starts an operating system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootSeparator {
    /// As edk2 to 2025.02 does and the published calculations have it.
    #[default]
    Rtmr1,
    /// As logs of some builds show.
    Rtmr0,
}

/// What goes into RTMR0.
#[derive(Clone, Copy, Debug)]
pub struct Platform<'a> {
    /// Memory.
    pub td_hob: TdHob<'a>,
    /// The machine's devices.
    pub acpi: AcpiFiles<'a>,
    /// What the variable store holds.
    pub secure_boot: SecureBoot<'a>,
    /// `BootOrder` and the options it names, as their variables hold them; [`DIRECT_BOOT_ORDER`] and
    /// [`DIRECT_BOOT_OPTION`] for a kernel of QEMU.
    pub boot_order: &'a [u8],
    /// `Boot####` in that order.
    pub boot_options: &'a [&'a [u8]],
}

/// `BootOrder` of OVMF without a disk: `Boot0000` alone.
pub const DIRECT_BOOT_ORDER: &[u8] = &[0, 0];
/// `Boot0000` of OVMF: active, hidden, an application (0x109), path of 44 bytes, `UiApp`, the firmware volume
/// 7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1 and in it the file 462caa21-7614-4503-836e-8ab6f4662331.
pub const DIRECT_BOOT_OPTION: &[u8] = b"\x09\x01\x00\x00\x2c\x00U\0i\0A\0p\0p\0\0\0\
    \x04\x07\x14\x00\xc9\xbd\xb8\x7c\xeb\xf8\x34\x4f\xaa\xea\x3e\xe4\xaf\x65\x16\xa1\
    \x04\x06\x14\x00\x21\xaa\x2c\x46\x14\x76\x03\x45\x83\x6e\x8a\xb6\xf4\x66\x23\x31\
    \x7f\xff\x04\x00";

/// A kernel that QEMU hands over.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'a> {
    /// The file, with an EFI stub.
    pub kernel: &'a [u8],
    /// What firmware sees of it.
    pub form: KernelForm,
    /// The RAM disk, empty if there is none.
    pub initrd: &'a [u8],
    /// As given to the hypervisor.
    pub cmdline: &'a str,
    /// What firmware adds to it.
    pub initrd_argument: InitrdArgument,
}

/// Everything that decides the measurements.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The firmware image (TDVF).
    pub firmware: &'a [u8],
    /// How the hypervisor adds its pages.
    pub page_order: PageOrder,
    /// For RTMR0.
    pub platform: Option<Platform<'a>>,
    /// For RTMR1 and RTMR2.
    pub kernel: Option<Kernel<'a>>,
    /// How this firmware separates.
    pub boot_separator: BootSeparator,
    /// How many vCPUs the ACPI tables should be for, if that is to be compared.
    pub vcpus: Option<u32>,
}

/// Why there is no measurement.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The firmware cannot be launched.
    #[error(transparent)]
    Firmware(#[from] TdvfError),
    /// There is nothing to measure into RTMR0.
    #[error("the firmware has no configuration firmware volume")]
    NoVariables,
    /// Memory or TD HOB.
    #[error("TD HOB: {0}")]
    TdHob(&'static str),
    /// The ACPI files.
    #[error("ACPI files: {0}")]
    Acpi(&'static str),
    /// They are of another machine.
    #[error("the ACPI tables list {tables} vCPUs, not {wanted}")]
    Vcpus {
        /// What they list.
        tables: usize,
        /// What was asked for.
        wanted: u32,
    },
    /// The boot order does not name as many options.
    #[error("the boot order names {named} options, {given} are given")]
    BootOptions {
        /// Bytes of the order divided by two.
        named: usize,
        /// Options given.
        given: usize,
    },
    /// The kernel.
    #[error("kernel: {0}")]
    Kernel(&'static str),
    /// Where the stub has nothing to measure is not known for every kernel.
    #[error("give a command line: what a kernel measures without one is not defined")]
    NoCommandLine,
    /// The argument belongs to a RAM disk.
    #[error("firmware adds initrd=initrd only with a RAM disk, which is missing")]
    InitrdArgument,
}

/// One thing that was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `MRTD`, `RTMR0`, …
    pub register: &'static str,
    /// What was added.
    pub name: String,
    /// What of it was hashed.
    pub hashed: String,
    /// Where that came from.
    pub source: &'static str,
    /// What this step alone adds: for an RTMR the digest that was extended, for MRTD SHA-384 over its records.
    pub input: [u8; 48],
    /// The register after it.
    pub digest: [u8; 48],
}

/// The measurements of a TD and how they came about.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// MRTD.
    pub mrtd: [u8; 48],
    /// MRTD if the hypervisor adds pages in the other order.
    pub mrtd_other_order: [u8; 48],
    /// RTMR0 to RTMR3; none where the files do not say.
    pub rtmrs: [Option<[u8; 48]>; 4],
    /// In the order of the launch, register by register.
    pub steps: Vec<Step>,
    /// What a reader should know before trusting it.
    pub notes: Vec<&'static str>,
}

const ORDER_NOTE: &str =
    "MRTD depends on the order in which the hypervisor adds pages; the other order is given too";
const RTMR0_NOTE: &str =
    "RTMR0 is that of OVMF with these ACPI files: compare with a guest's event log before a policy lists it";
const KERNEL_NOTE: &str = "RTMR1 and RTMR2 are those of a kernel that QEMU hands to OVMF and whose EFI stub measures its \
                           load options and RAM disk";

/// Computes the measurements of `launch`.
///
/// # Errors
/// `Firmware` for an image that cannot be launched; `NoVariables`, `TdHob`, `Acpi`, `Vcpus`, `BootOptions` for RTMR0;
/// `Kernel`, `NoCommandLine`, `InitrdArgument` for RTMR1 and RTMR2.
pub fn measure(launch: &Launch<'_>) -> Result<Measurement, LaunchError> {
    let sections = sections(launch.firmware)?;
    let mut steps = Vec::new();
    let mrtd_value = measure_mrtd(&mut steps, &sections, launch.page_order);
    let other = match launch.page_order {
        PageOrder::Interleaved => PageOrder::TwoPass,
        PageOrder::TwoPass => PageOrder::Interleaved,
    };
    let mut notes = vec![ORDER_NOTE];
    let mut rtmrs = [None, None, None, Some([0; 48])];
    if let Some(platform) = &launch.platform {
        notes.push(RTMR0_NOTE);
        rtmrs[0] = Some(rtmr0(&mut steps, launch, &sections, platform)?);
    }
    if let Some(kernel) = &launch.kernel {
        notes.push(KERNEL_NOTE);
        rtmrs[1] = Some(rtmr1(&mut steps, launch, kernel)?);
        rtmrs[2] = Some(rtmr2(&mut steps, kernel)?);
    }
    let mrtd_other_order = mrtd(&sections, other).last().map_or(mrtd_value, |last| last.digest);
    Ok(Measurement { mrtd: mrtd_value, mrtd_other_order, rtmrs, steps, notes })
}

fn measure_mrtd(steps: &mut Vec<Step>, sections: &[Section<'_>], order: PageOrder) -> [u8; 48] {
    let mut value = [0; 48];
    for (section, Extended { input, digest }) in sections.iter().zip(mrtd(sections, order)) {
        let hashed = match (section.added, section.extended) {
            (true, true) => "address and bytes of each page",
            (true, false) => "address of each page, contents unmeasured",
            (false, _) => "nothing: the guest adds it later",
        };
        steps.push(Step {
            register: "MRTD",
            name: format!("{}, {} pages at {:#x}", section.kind.as_str(), section.pages, section.gpa),
            hashed: hashed.to_owned(),
            source: "the firmware's TDX metadata",
            input,
            digest,
        });
        value = digest;
    }
    value
}

fn rtmr0(
    steps: &mut Vec<Step>,
    launch: &Launch<'_>,
    sections: &[Section<'_>],
    platform: &Platform<'_>,
) -> Result<[u8; 48], LaunchError> {
    let variables = sections.iter().find(|section| section.kind == SectionKind::Cfv);
    let variables = variables.ok_or(LaunchError::NoVariables)?;
    let (hob, source) = match platform.td_hob {
        TdHob::Memory(bytes) => (
            td_hob(sections, bytes).map_err(LaunchError::TdHob)?,
            "memory size and TDX metadata, as QEMU writes it",
        ),
        TdHob::Bytes(bytes) => (bytes.to_vec(), "the TD HOB file"),
    };
    let acpi_files = acpi::measured(&platform.acpi).map_err(LaunchError::Acpi)?;
    if let (Some(wanted), Some(tables)) = (launch.vcpus, acpi::vcpus(platform.acpi.tables))
        && usize::try_from(wanted) != Ok(tables)
    {
        return Err(LaunchError::Vcpus { tables, wanted });
    }
    let (named, given) = (platform.boot_order.len() / 2, platform.boot_options.len());
    if named != given || !platform.boot_order.len().is_multiple_of(2) {
        return Err(LaunchError::BootOptions { named, given });
    }
    let mut register = Register::new("RTMR0", steps);
    register.add("TD HOB", &hob, source);
    register.add("configuration firmware volume", variables.data, "the firmware file");
    let secure_boot = &platform.secure_boot;
    for (vendor, name, value) in [
        (&GLOBAL_VARIABLE, "SecureBoot", secure_boot.secure_boot),
        (&GLOBAL_VARIABLE, "PK", secure_boot.pk),
        (&GLOBAL_VARIABLE, "KEK", secure_boot.kek),
        (&SECURITY_DATABASE, "db", secure_boot.db),
        (&SECURITY_DATABASE, "dbx", secure_boot.dbx),
    ] {
        register.add(
            &format!("variable {name}"),
            &variable_data(vendor, name, value),
            "secure boot variables",
        );
    }
    register.add("separator", &SEPARATOR, "firmware");
    for (name, bytes) in acpi_files {
        register.add(name, bytes, "the ACPI files");
    }
    register.add("variable BootOrder, without its name", platform.boot_order, "boot order");
    for option in platform.boot_options {
        register.add("variable Boot####, without its name", option, "boot order");
    }
    if launch.boot_separator == BootSeparator::Rtmr0 {
        register.add("separator before the operating system", &SEPARATOR, "firmware");
    }
    Ok(register.value)
}

/// UEFI_VARIABLE_DATA (profile 1.06, 10.2.6): vendor GUID, lengths of name in characters and of data, name, data.
fn variable_data(vendor: &[u8; 16], name: &str, value: &[u8]) -> Vec<u8> {
    let name: Vec<u16> = name.encode_utf16().collect();
    let mut data = vendor.to_vec();
    data.extend([name.len() as u64, value.len() as u64].map(u64::to_le_bytes).concat());
    data.extend(name.iter().flat_map(|unit| unit.to_le_bytes()));
    data.extend(value);
    data
}

fn rtmr1(steps: &mut Vec<Step>, launch: &Launch<'_>, kernel: &Kernel<'_>) -> Result<[u8; 48], LaunchError> {
    let (digest, hashed) = match kernel.form {
        KernelForm::File => (authenticode_sha384(kernel.kernel), "Authenticode digest of the file"),
        KernelForm::QemuPatched { memory_bytes } => {
            let patched = patched(kernel.kernel, kernel.initrd.len(), kernel.cmdline, memory_bytes);
            let digest = patched.and_then(|patched| authenticode_sha384(&patched));
            (digest, "Authenticode digest, setup header as QEMU fills it in")
        }
    };
    let digest = digest.map_err(LaunchError::Kernel)?;
    let mut register = Register::new("RTMR1", steps);
    register.add_digest("kernel", digest, hashed.to_owned(), "the kernel file");
    register.add("action", CALLING, "firmware");
    if launch.boot_separator == BootSeparator::Rtmr1 {
        register.add("separator before the operating system", &SEPARATOR, "firmware");
    }
    register.add("action", EXIT, "firmware");
    register.add("action", EXIT_DONE, "firmware");
    Ok(register.value)
}

fn rtmr2(steps: &mut Vec<Step>, kernel: &Kernel<'_>) -> Result<[u8; 48], LaunchError> {
    if kernel.cmdline.is_empty() {
        return Err(LaunchError::NoCommandLine);
    }
    if kernel.initrd.is_empty() && kernel.initrd_argument != InitrdArgument::None {
        return Err(LaunchError::InitrdArgument);
    }
    let mut register = Register::new("RTMR2", steps);
    let options = load_options(kernel.cmdline, kernel.initrd_argument);
    register.add("load options, UTF-16 with their zero", &options, "command line");
    if !kernel.initrd.is_empty() {
        register.add("RAM disk", kernel.initrd, "the RAM disk file");
    }
    Ok(register.value)
}

/// An RTMR under way.
struct Register<'a> {
    name: &'static str,
    value: [u8; 48],
    steps: &'a mut Vec<Step>,
}

impl<'a> Register<'a> {
    fn new(name: &'static str, steps: &'a mut Vec<Step>) -> Self {
        Self { name, value: [0; 48], steps }
    }

    fn add(&mut self, name: &str, bytes: &[u8], source: &'static str) {
        self.add_digest(name, sha384(bytes), format!("{} bytes", bytes.len()), source);
    }

    fn add_digest(&mut self, name: &str, event: [u8; 48], hashed: String, source: &'static str) {
        self.value = extend(&self.value, &event);
        let (register, name, digest) = (self.name, name.to_owned(), self.value);
        self.steps.push(Step { register, name, hashed, source, input: event, digest });
    }
}

#[cfg(test)]
mod tests {
    use super::super::acpi::tests::{loader, tables};
    use super::super::linux_boot::tests::kernel;
    use super::super::tdvf::tests::{SECTIONS, image};
    use super::*;
    use std::collections::BTreeSet;

    struct Files {
        firmware: Vec<u8>,
        kernel: Vec<u8>,
        loader: Vec<u8>,
        tables: Vec<u8>,
    }

    fn files() -> Files {
        Files { firmware: image(&SECTIONS), kernel: kernel(), loader: loader(), tables: tables(2) }
    }

    fn launch(files: &Files) -> Launch<'_> {
        Launch {
            firmware: &files.firmware,
            page_order: PageOrder::Interleaved,
            platform: Some(Platform {
                td_hob: TdHob::Memory(0x8000_0000),
                acpi: AcpiFiles { loader: &files.loader, rsdp: b"rsdp", tables: &files.tables },
                secure_boot: SecureBoot::default(),
                boot_order: DIRECT_BOOT_ORDER,
                boot_options: &[DIRECT_BOOT_OPTION],
            }),
            kernel: Some(Kernel {
                kernel: &files.kernel,
                form: KernelForm::QemuPatched { memory_bytes: 0x8000_0000 },
                initrd: b"initrd",
                cmdline: "quiet",
                initrd_argument: InitrdArgument::After,
            }),
            boot_separator: BootSeparator::Rtmr1,
            vcpus: Some(2),
        }
    }

    /// Values of a program in another language, written from the specifications for these tests.
    #[test]
    fn golden_values() {
        let files = files();
        let launch = launch(&files);
        let of = |launch: &Launch<'_>| measure(launch).unwrap().rtmrs.map(|rtmr| hex::encode(rtmr.unwrap()));
        assert_eq!(
            of(&launch),
            [
                "783a906553279ffd138b9d3b28368bd3f3cb9ba24a7cb77f8428d5d794b90ccc1e30811fae95410cfd3396db73845406",
                "637a391f00adc704dad61ed7c8b3296393f06be8af7ee4e78b870334a936b9b1b5721de17d0c3677f7376b9a6b5aa619",
                "bef5355395bde66256accbcc916f56ba08794dfb47f038f1064369d14bb934398048b82ed2d3cb7f92b02f4a20272ccc",
                &"0".repeat(96)
            ]
        );
        let kernel = Kernel {
            form: KernelForm::File,
            initrd_argument: InitrdArgument::Before,
            ..launch.kernel.unwrap()
        };
        let platform = Platform { td_hob: TdHob::Memory(0x1_0000_0000), ..launch.platform.unwrap() };
        let other = Launch {
            kernel: Some(kernel),
            platform: Some(platform),
            boot_separator: BootSeparator::Rtmr0,
            ..launch
        };
        assert_eq!(
            of(&other),
            [
                "00a5f6393014fc1a411a594985585d173e0d7acd95230bedaeb392b7b6568802050dec1344af8212679630d0f91174da",
                "db369a0eac580e21cb3114b8f178c3d1ca517a35d907a22d0284803b121373b814783b8027a4b7ce28aaf9047d4798f7",
                "b132cd0dced29ebe0032ba65f0cf76cc53f4d3a10ace80bcb7b1b2138aa0456f6fd49ed6c5d199d67080f6c7709e25bb",
                &"0".repeat(96)
            ]
        );
    }

    #[test]
    fn every_input_is_measured() {
        let files = files();
        let base = launch(&files);
        let (platform, kernel) = (base.platform.unwrap(), base.kernel.unwrap());
        let with_platform = |platform| Launch { platform: Some(platform), ..base };
        let with_kernel = |kernel| Launch { kernel: Some(kernel), ..base };
        let secure_boot = |secure_boot| with_platform(Platform { secure_boot, ..platform });
        let none = SecureBoot::default();
        let (mut variables, mut code) = (files.firmware.clone(), files.firmware.clone());
        variables[7] ^= 1;
        code[0x1007] ^= 1;
        let mut other_kernel = files.kernel.clone();
        other_kernel[0x1001] ^= 1;
        let other_tables = [&files.tables[..], b"DSDT\x08\0\0\0"].concat();
        let launches = [
            base,
            Launch { firmware: &variables, ..base },
            Launch { firmware: &code, ..base },
            Launch { page_order: PageOrder::TwoPass, ..base },
            Launch { boot_separator: BootSeparator::Rtmr0, ..base },
            with_platform(Platform { td_hob: TdHob::Memory(0x8000_1000), ..platform }),
            with_platform(Platform { td_hob: TdHob::Bytes(b"hob"), ..platform }),
            with_platform(Platform { acpi: AcpiFiles { rsdp: b"rsdq", ..platform.acpi }, ..platform }),
            with_platform(Platform {
                acpi: AcpiFiles { tables: &other_tables, ..platform.acpi },
                ..platform
            }),
            secure_boot(SecureBoot { secure_boot: &[1], ..none }),
            secure_boot(SecureBoot { pk: &[1], ..none }),
            secure_boot(SecureBoot { kek: &[1], ..none }),
            secure_boot(SecureBoot { db: &[1], ..none }),
            secure_boot(SecureBoot { dbx: &[1], ..none }),
            with_platform(Platform { boot_order: &[1, 0], ..platform }),
            with_platform(Platform { boot_options: &[b"other"], ..platform }),
            with_kernel(Kernel { kernel: &other_kernel, ..kernel }),
            with_kernel(Kernel { form: KernelForm::File, ..kernel }),
            with_kernel(Kernel { initrd: b"initre", ..kernel }),
            with_kernel(Kernel { cmdline: "quiet ", ..kernel }),
            with_kernel(Kernel { initrd_argument: InitrdArgument::Before, ..kernel }),
        ];
        let all = |launch: &Launch<'_>| {
            let measurement = measure(launch).unwrap();
            (measurement.mrtd, measurement.rtmrs)
        };
        let different: BTreeSet<_> = launches.iter().map(all).collect();
        assert_eq!(different.len(), launches.len());
    }

    #[test]
    fn what_files_do_not_say_is_not_said() {
        let files = files();
        let bare = Launch { platform: None, kernel: None, ..launch(&files) };
        let measurement = measure(&bare).unwrap();
        assert_eq!(measurement.rtmrs, [None, None, None, Some([0; 48])]);
        assert!(measurement.steps.iter().all(|step| step.register == "MRTD"));
        assert_eq!(measurement.steps.last().unwrap().digest, measurement.mrtd);
        let two_pass = measure(&Launch { page_order: PageOrder::TwoPass, ..bare }).unwrap();
        assert_eq!(
            (two_pass.mrtd, two_pass.mrtd_other_order),
            (measurement.mrtd_other_order, measurement.mrtd)
        );
    }

    #[test]
    fn steps_lead_to_the_registers() {
        let files = files();
        let measurement = measure(&launch(&files)).unwrap();
        for (index, name) in ["RTMR0", "RTMR1", "RTMR2"].into_iter().enumerate() {
            let steps = measurement.steps.iter().filter(|step| step.register == name);
            let value = steps.fold([0; 48], |value, step| extend(&value, &step.input));
            assert_eq!(measurement.rtmrs[index], Some(value), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_launched_is_refused() {
        let files = files();
        let base = launch(&files);
        let (platform, kernel) = (base.platform.unwrap(), base.kernel.unwrap());
        let error = |launch: Launch<'_>| measure(&launch).unwrap_err();
        let of_platform = |platform| error(Launch { platform: Some(platform), ..base });
        let of_kernel = |kernel| error(Launch { kernel: Some(kernel), ..base });
        assert!(matches!(error(Launch { firmware: b"", ..base }), LaunchError::Firmware(_)));
        let no_variables = image(&SECTIONS[2..]);
        assert_eq!(error(Launch { firmware: &no_variables, ..base }), LaunchError::NoVariables);
        assert!(matches!(
            of_platform(Platform { td_hob: TdHob::Memory(1), ..platform }),
            LaunchError::TdHob(_)
        ));
        let acpi = AcpiFiles { loader: b"", ..platform.acpi };
        assert!(matches!(of_platform(Platform { acpi, ..platform }), LaunchError::Acpi(_)));
        assert_eq!(error(Launch { vcpus: Some(3), ..base }), LaunchError::Vcpus { tables: 2, wanted: 3 });
        for boot_order in [&[0, 0, 1, 0][..], &[0, 0, 1], &[]] {
            let refused = of_platform(Platform { boot_order, ..platform });
            assert!(matches!(refused, LaunchError::BootOptions { .. }));
        }
        assert!(matches!(of_kernel(Kernel { kernel: b"", ..kernel }), LaunchError::Kernel(_)));
        assert_eq!(of_kernel(Kernel { cmdline: "", ..kernel }), LaunchError::NoCommandLine);
        assert_eq!(of_kernel(Kernel { initrd: b"", ..kernel }), LaunchError::InitrdArgument);
    }
}
