//! What we compute of a TD's boot is what recorded TDs measured, as far as logs without their files show it.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and stop at the first surprise"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use adyton_attestation::eventlog::EventLog;
use adyton_attestation::measurement::tdx::{
    AcpiFiles, BootSeparator, DIRECT_BOOT_OPTION, DIRECT_BOOT_ORDER, Launch, Measurement, PageOrder,
    Platform, SecureBoot, TdHob, measure,
};
use ring::digest::{SHA256, digest};

/// A firmware whose metadata has the sections of OVMF, with nothing in them.
fn firmware() -> Vec<u8> {
    const PAGE: usize = 4096;
    let sections: [(u32, u64, u64, u32); 5] = [
        (0x1000, 0xffff_f000, 0x1000, 1),
        (0, 0x81_0000, 0x1_0000, 3),
        (0, 0x80_b000, 0x2000, 3),
        (0, 0x80_9000, 0x2000, 2),
        (0, 0x80_0000, 0x6000, 3),
    ];
    let mut metadata = b"TDVF".to_vec();
    metadata.extend([16 + 32 * 5, 1, 5].map(u32::to_le_bytes).concat());
    for (raw_len, gpa, len, kind) in sections {
        metadata.extend([0, raw_len].map(u32::to_le_bytes).concat());
        metadata.extend([gpa, len].map(u64::to_le_bytes).concat());
        metadata.extend([kind, 0].map(u32::to_le_bytes).concat());
    }
    let mut footer = u32::try_from(PAGE).unwrap().to_le_bytes().to_vec();
    footer.extend(22_u16.to_le_bytes());
    footer.extend(hex::decode("35657ae44a989847865e4685a7bf8ec2").unwrap());
    footer.extend(40_u16.to_le_bytes());
    footer.extend(hex::decode("de82b596b21ff745baeaa366c55a082d").unwrap());
    let mut image = vec![0; 2 * PAGE];
    image[PAGE..PAGE + metadata.len()].copy_from_slice(&metadata);
    let end = image.len() - 32;
    image[end - footer.len()..end].copy_from_slice(&footer);
    image
}

fn loader() -> Vec<u8> {
    let names = ["etc/acpi/rsdp", "etc/acpi/tables"];
    let command = |name: &str| {
        let mut command = [&[1, 0, 0, 0], name.as_bytes()].concat();
        command.resize(128, 0);
        command
    };
    names.iter().flat_map(|name| command(name)).collect()
}

/// As of a TD of 2 GiB that QEMU starts with a kernel, its ACPI files and variables unknown.
fn measurement() -> Measurement {
    let (firmware, loader) = (firmware(), loader());
    measure(&Launch {
        firmware: &firmware,
        page_order: PageOrder::Interleaved,
        platform: Some(Platform {
            td_hob: TdHob::Memory(2 << 30),
            acpi: AcpiFiles { loader: &loader, rsdp: b"rsdp", tables: b"tables" },
            secure_boot: SecureBoot::default(),
            boot_order: DIRECT_BOOT_ORDER,
            boot_options: &[DIRECT_BOOT_OPTION],
        }),
        kernel: None,
        boot_separator: BootSeparator::Rtmr1,
        vcpus: None,
    })
    .unwrap()
}

#[test]
fn the_td_hob_and_variables_are_those_that_hardware_measured() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find(|dir| dir.join("Cargo.lock").exists())
        .unwrap();
    let log = root.join("../shared/evidence/tdx-v4-dstack-lite/event-log.json");
    let Ok(log) = fs::read(log) else {
        eprintln!("SKIPPED: no sample tdx-v4-dstack-lite beside the project");
        return;
    };
    let log = EventLog::parse(&log).unwrap();
    let measured: Vec<_> = log.events().iter().filter(|event| event.rtmr() == Some(0)).collect();
    let measurement = measurement();
    let computed: Vec<_> = measurement.steps.iter().filter(|step| step.register == "RTMR0").collect();
    assert_eq!(computed.len(), measured.len(), "as many events in the same order");
    let differing: BTreeSet<_> = computed
        .iter()
        .zip(measured)
        .filter(|(step, event)| step.input != event.digest())
        .map(|(step, _)| step.name.as_str())
        .collect();
    // The files of these are not in the sample; all else, the TD HOB among it, is as the hardware measured it.
    let without_files =
        ["ACPI root pointer", "ACPI table loader", "ACPI tables", "configuration firmware volume"];
    assert_eq!(differing, BTreeSet::from(without_files));
}

/// `ovmf` 2022.11-6+deb12u2 of Debian 12, where it is installed. MRTD as another program computes it from that file.
#[test]
fn mrtd_of_a_distributed_firmware() {
    const KNOWN: &str = "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773";
    let found = fs::read("/usr/share/ovmf/OVMF.fd").ok();
    let is_it = |image: &Vec<u8>| hex::encode(digest(&SHA256, image)) == KNOWN;
    let Some(firmware) = found.filter(is_it) else {
        eprintln!("SKIPPED: Debian's ovmf 2022.11-6+deb12u2 is not installed");
        return;
    };
    let launch = Launch {
        firmware: &firmware,
        page_order: PageOrder::Interleaved,
        platform: None,
        kernel: None,
        boot_separator: BootSeparator::Rtmr1,
        vcpus: None,
    };
    let measurement = measure(&launch).unwrap();
    assert_eq!(
        hex::encode(measurement.mrtd),
        "4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057fb887fed0744d5631a212967fb231c47"
    );
    assert_eq!(
        hex::encode(measurement.mrtd_other_order),
        "acccbcc870a381adab0d3919d90a7f268ac3b0364771f202ed4bb4e892d045b33db3b32e6924cba830a724eed443f7e1"
    );
}
