//! `adyton measure tdx`: MRTD and the RTMRs of a TD, computed from its files.

use std::path::{Path, PathBuf};

use adyton_attestation::eventlog::{EventLog, MAX_LOG_LEN_BYTES};
use adyton_attestation::measurement::ovmf::MAX_FIRMWARE_LEN_BYTES;
use adyton_attestation::measurement::tdx::{
    AcpiFiles, BootSeparator, DIRECT_BOOT_OPTION, DIRECT_BOOT_ORDER, InitrdArgument, Kernel, KernelForm,
    Launch, Measurement, PageOrder, Platform, SecureBoot, Step, TdHob, measure,
};
use adyton_broker::read_capped;
use clap::Args;
use serde_json::{Value, json};

use super::measure::MAX_PROGRAM_LEN;
use super::output::INTEGRITY;
use super::{Failure, Printed};

/// Tables, variables, boot options: QEMU's largest is below 1 MiB.
const MAX_PART_LEN: u64 = 16 << 20;
const REGISTERS: [&str; 4] = ["rtmr0", "rtmr1", "rtmr2", "rtmr3"];

#[derive(Args)]
#[command(after_help = "Example:\n  adyton measure tdx --firmware OVMF.fd --memory 4G --vcpus 4 \\\n    \
                  --acpi-tables tables --acpi-rsdp rsdp --acpi-loader table-loader \\\n    \
                  --kernel vmlinuz --kernel-form patched --initrd guest.cpio --initrd-argument after \\\n    \
                  --cmdline 'console=ttyS0' --explain\n\n\
                  The firmware alone gives MRTD. RTMR0 needs the ACPI files, which a guest of the same machine finds\n\
                  under /sys/firmware/qemu_fw_cfg/by_name/etc. RTMR1 and RTMR2 need the kernel. What the files do not\n\
                  give is taken from --event-log, and what they do give must agree with it (exit 40 if not).")]
pub(crate) struct TdxArgs {
    /// The firmware image (TDVF, such as OVMF.fd built with TDX support).
    #[arg(long)]
    firmware: PathBuf,
    /// How the hypervisor adds pages: interleaved (Linux 6.16 and later) or two-pass (earlier patches, QEMU 8).
    #[arg(long, default_value = "interleaved", value_parser = ["interleaved", "two-pass"])]
    page_order: String,
    /// Memory of the guest, such as 2G or 4096M.
    #[arg(long, value_parser = memory)]
    memory: Option<u64>,
    /// The TD HOB list without its end marker, instead of one as QEMU writes it for --memory.
    #[arg(long, requires = "acpi_tables")]
    td_hob: Option<PathBuf>,
    /// Number of vCPUs, compared with the ACPI tables.
    #[arg(long, requires = "acpi_tables")]
    vcpus: Option<u32>,
    /// QEMU's ACPI tables (etc/acpi/tables).
    #[arg(long, requires_all = ["acpi_rsdp", "acpi_loader"])]
    acpi_tables: Option<PathBuf>,
    /// The ACPI root pointer (etc/acpi/rsdp).
    #[arg(long, requires = "acpi_tables")]
    acpi_rsdp: Option<PathBuf>,
    /// The ACPI table loader (etc/table-loader).
    #[arg(long, requires = "acpi_tables")]
    acpi_loader: Option<PathBuf>,
    /// Folder with SecureBoot, PK, KEK, db and dbx, the data of each variable; without it none is set.
    #[arg(long, requires = "acpi_tables")]
    secure_boot: Option<PathBuf>,
    /// The data of BootOrder; without it that of OVMF without a disk.
    #[arg(long, requires_all = ["acpi_tables", "boot_option"])]
    boot_order: Option<PathBuf>,
    /// The data of each boot option that BootOrder names, in that order.
    #[arg(long, requires = "boot_order")]
    boot_option: Vec<PathBuf>,
    /// The register of the separator before the operating system, which builds of OVMF choose differently.
    #[arg(long, default_value = "rtmr1", value_parser = ["rtmr0", "rtmr1"])]
    boot_separator: String,
    /// The kernel, with an EFI stub, if the hypervisor hands it over.
    #[arg(long, requires_all = ["kernel_form", "cmdline"])]
    kernel: Option<PathBuf>,
    /// What firmware sees of the kernel: the file, or the file patched by QEMU (needs --memory).
    #[arg(long, requires = "kernel", value_parser = ["file", "patched"])]
    kernel_form: Option<String>,
    /// The RAM disk.
    #[arg(long, requires_all = ["kernel", "initrd_argument"])]
    initrd: Option<PathBuf>,
    /// Where firmware adds initrd=initrd to the command line: before (edk2 that can start a shim), after (earlier), none.
    #[arg(long, requires = "initrd", value_parser = ["before", "after", "none"])]
    initrd_argument: Option<String>,
    /// The kernel command line, exactly as given to the hypervisor.
    #[arg(long, requires = "kernel")]
    cmdline: Option<String>,
    /// An event log of a guest of this kind, binary or JSON.
    #[arg(long)]
    event_log: Option<PathBuf>,
    /// Say what was measured, step by step.
    #[arg(long)]
    explain: bool,
}

/// Bytes, with K, M, G or T for powers of 1024.
fn memory(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (text.get(..text.len() - 1), 10),
        Some(b'M' | b'm') => (text.get(..text.len() - 1), 20),
        Some(b'G' | b'g') => (text.get(..text.len() - 1), 30),
        Some(b'T' | b't') => (text.get(..text.len() - 1), 40),
        _ => (Some(text), 0),
    };
    let number = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let bytes = number.and_then(|digits| digits.parse::<u64>().ok()).and_then(|n| n.checked_mul(1 << shift));
    bytes.ok_or_else(|| "give bytes, or a number with K, M, G or T".into())
}

/// A file that holds no secret.
fn read(path: &Path, max: u64) -> Result<Vec<u8>, Failure> {
    Ok(std::mem::take(&mut *read_capped(path, max)?))
}

/// The files behind the arguments.
struct Files {
    firmware: Vec<u8>,
    td_hob: Option<Vec<u8>>,
    /// Tables, root pointer, loader.
    acpi: Option<[Vec<u8>; 3]>,
    /// SecureBoot, PK, KEK, db, dbx.
    secure_boot: [Vec<u8>; 5],
    boot_order: Option<Vec<u8>>,
    boot_options: Vec<Vec<u8>>,
    kernel: Option<Vec<u8>>,
    initrd: Option<Vec<u8>>,
}

impl Files {
    fn read(args: &TdxArgs) -> Result<Self, Failure> {
        let one = |path: &Option<PathBuf>, max| path.as_ref().map(|path| read(path, max)).transpose();
        let acpi = match (&args.acpi_tables, &args.acpi_rsdp, &args.acpi_loader) {
            (Some(tables), Some(rsdp), Some(loader)) => {
                Some([read(tables, MAX_PART_LEN)?, read(rsdp, MAX_PART_LEN)?, read(loader, MAX_PART_LEN)?])
            }
            _ => None,
        };
        let mut secure_boot: [Vec<u8>; 5] = Default::default();
        if let Some(folder) = &args.secure_boot {
            for (variable, name) in secure_boot.iter_mut().zip(["SecureBoot", "PK", "KEK", "db", "dbx"]) {
                *variable = read(&folder.join(name), MAX_PART_LEN)?;
            }
        }
        let options: Result<Vec<_>, _> =
            args.boot_option.iter().map(|path| read(path, MAX_PART_LEN)).collect();
        Ok(Self {
            firmware: read(&args.firmware, MAX_FIRMWARE_LEN_BYTES as u64)?,
            td_hob: one(&args.td_hob, MAX_PART_LEN)?,
            acpi,
            secure_boot,
            boot_order: one(&args.boot_order, MAX_PART_LEN)?,
            boot_options: options?,
            kernel: one(&args.kernel, MAX_PROGRAM_LEN)?,
            initrd: one(&args.initrd, MAX_PROGRAM_LEN)?,
        })
    }
}

pub(crate) fn run(args: &TdxArgs) -> Result<Printed, Failure> {
    let files = Files::read(args)?;
    let options: Vec<&[u8]> = match &files.boot_order {
        Some(_) => files.boot_options.iter().map(Vec::as_slice).collect(),
        None => vec![DIRECT_BOOT_OPTION],
    };
    let launch = Launch {
        firmware: &files.firmware,
        page_order: PageOrder::from_name(&args.page_order)
            .ok_or_else(|| Failure::own("unknown page order"))?,
        platform: platform(args, &files, &options)?,
        kernel: kernel(args, &files)?,
        boot_separator: match args.boot_separator.as_str() {
            "rtmr0" => BootSeparator::Rtmr0,
            _ => BootSeparator::Rtmr1,
        },
        vcpus: args.vcpus,
    };
    let measurement = measure(&launch).map_err(|error| Failure::own(error.to_string()))?;
    let log = args.event_log.as_ref().map(|path| read_capped(path, MAX_LOG_LEN_BYTES as u64)).transpose()?;
    let log = log.map(|bytes| EventLog::parse(&bytes)).transpose();
    let log = log.map_err(|error| Failure::own(error.to_string()))?;
    if let Some(log) = &log {
        agree(&measurement, log)?;
    }
    Ok(print(&measurement, log.as_ref(), args.explain))
}

fn platform<'a>(
    args: &TdxArgs,
    files: &'a Files,
    boot_options: &'a [&'a [u8]],
) -> Result<Option<Platform<'a>>, Failure> {
    let Some([tables, rsdp, loader]) = &files.acpi else { return Ok(None) };
    let td_hob = match (&files.td_hob, args.memory) {
        (Some(bytes), _) => TdHob::Bytes(bytes),
        (None, Some(memory)) => TdHob::Memory(memory),
        (None, None) => return Err(Failure::own("RTMR0 needs --memory or --td-hob")),
    };
    let [secure_boot, pk, kek, db, dbx] = &files.secure_boot;
    Ok(Some(Platform {
        td_hob,
        acpi: AcpiFiles { loader, rsdp, tables },
        secure_boot: SecureBoot { secure_boot, pk, kek, db, dbx },
        boot_order: files.boot_order.as_deref().unwrap_or(DIRECT_BOOT_ORDER),
        boot_options,
    }))
}

fn kernel<'a>(args: &'a TdxArgs, files: &'a Files) -> Result<Option<Kernel<'a>>, Failure> {
    let Some(kernel) = &files.kernel else { return Ok(None) };
    let form = match (args.kernel_form.as_deref(), args.memory) {
        (Some("file"), _) => KernelForm::File,
        (_, Some(memory_bytes)) => KernelForm::QemuPatched { memory_bytes },
        (_, None) => return Err(Failure::own("--kernel-form patched needs --memory")),
    };
    let initrd_argument = args.initrd_argument.as_deref().and_then(InitrdArgument::from_name);
    Ok(Some(Kernel {
        kernel,
        form,
        initrd: files.initrd.as_deref().unwrap_or_default(),
        cmdline: args.cmdline.as_deref().unwrap_or_default(),
        initrd_argument: initrd_argument.unwrap_or(InitrdArgument::None),
    }))
}

/// What was computed must be what the log says; RTMR3 is the log's own affair.
fn agree(measurement: &Measurement, log: &EventLog) -> Result<(), Failure> {
    let mut differing = Vec::new();
    for (index, (computed, replayed)) in measurement.rtmrs.iter().zip(log.replay()).enumerate().take(3) {
        if computed.is_none_or(|computed| computed == replayed) {
            continue;
        }
        let register = format!("RTMR{index}");
        let steps: Vec<&Step> = measurement.steps.iter().filter(|step| step.register == register).collect();
        let events: Vec<_> =
            log.events().iter().filter(|event| event.rtmr() == Some(index) && event.is_extended()).collect();
        let same = steps.iter().zip(&events).take_while(|(step, event)| step.input == event.digest()).count();
        let computed = steps.get(same).map_or("nothing", |step| step.name.as_str());
        let logged = events
            .get(same)
            .map_or("nothing".to_owned(), |event| format!("{} {}", event.type_name(), event.description()));
        differing
            .push(format!("{register}, at its event {}: computed {computed}, logged {logged}", same + 1));
    }
    if differing.is_empty() {
        return Ok(());
    }
    Err(Failure::with(INTEGRITY, format!("the event log disagrees with the files: {}", differing.join("; "))))
}

/// The text form is TOML; all that explains is in its comments.
fn print(measurement: &Measurement, log: Option<&EventLog>, explain: bool) -> Printed {
    let mrtd = hex::encode(measurement.mrtd);
    let other = hex::encode(measurement.mrtd_other_order);
    let mut json = json!({ "mrtd": mrtd, "mrtd_other_order": other, "notes": measurement.notes });
    let mut text: String = measurement.notes.iter().map(|note| format!("# note: {note}\n")).collect();
    text += &format!("# MRTD in the other page order: {other}\n");
    if explain {
        for step in &measurement.steps {
            let Step { register, name, hashed, source, digest, .. } = step;
            let digest = hex::encode(digest);
            text += &format!("# {register}: {name} ({hashed}; from {source})\n#   -> {digest}\n");
        }
        json["steps"] = measurement.steps.iter().map(step_json).collect();
    }
    text += &format!("mrtd = [\"{mrtd}\"]\n");
    let replayed = log.map(EventLog::replay);
    for (index, name) in REGISTERS.iter().enumerate() {
        let computed = measurement.rtmrs.get(index).copied().flatten();
        let logged = replayed.and_then(|rtmrs| rtmrs.get(index).copied());
        // The log knows what the running system measured; files cannot.
        let (value, source) = match (computed, logged) {
            (_, Some(logged)) if index == 3 => (Some(logged), "the event log"),
            (Some(computed), _) => (Some(computed), "the files"),
            (None, Some(logged)) => (Some(logged), "the event log"),
            (None, None) => (None, "not known from these files"),
        };
        let value = value.map(hex::encode);
        text += &match &value {
            Some(value) => format!("{name} = [\"{value}\"] # from {source}\n"),
            None => format!("# {name}: {source}\n"),
        };
        json[*name] = json!(value);
        json["sources"][*name] = json!(source);
    }
    Printed::new(json, text)
}

fn step_json(step: &Step) -> Value {
    json!({
        "register": step.register, "name": step.name, "hashed": step.hashed, "source": step.source,
        "input": hex::encode(step.input), "digest": hex::encode(step.digest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_memory() {
        assert_eq!(memory("2G"), Ok(2 << 30));
        assert_eq!(memory("512m"), Ok(512 << 20));
        assert_eq!(memory("4096"), Ok(4096));
        for wrong in ["", "G", "-1G", "1.5G", "+1", "1GB", "99999999999T"] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }
}
