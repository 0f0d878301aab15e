//! Everything a host can put into a machine beside what is measured, one test each: refused, ignored, or visible.
//!
//! The host here starts the emulator by way of a wrapper that adds options of its own, as nobody could keep it from
//! doing. What only real hardware can show is said where it applies, and listed in docs/guest.md.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use adyton_tests::{Machine, Running, change_description};

/// Starts a machine that has more than it should, which must serve as if it had not.
fn serves_with(options: &str) -> Option<(Machine, Running, Running)> {
    let machine = Machine::new()?;
    machine.add_options(options);
    let (broker, host) = (machine.site.start_broker(), machine.site.start_host());
    machine.wait_until_accepted(&host);
    machine.site.write_rows("rows.csv", "0.5", 2);
    machine.site.succeed(&["predict", &machine.site.url(), "--input", "rows.csv"]);
    Some((machine, broker, host))
}

/// Starts a machine with another command line, whose first program must stop it.
fn stops_with(word: &str) {
    let Some(machine) = Machine::new() else { return };
    machine.copy_image("image", |image| change_description(image, "\"quiet ", &format!("\"quiet {word} ")));
    // Even if client and broker were told to expect it.
    machine.expect_image("image");
    let (_broker, host) = (machine.site.start_broker(), machine.site.start_host());
    machine.wait_for_message(&host, "is not allowed");
    machine.wait_for_message(&host, "starting it again");
    assert!(!host.messages().contains("keys drawn"), "{}", host.messages());
}

#[test]
fn an_extra_word_of_the_command_line_is_refused() {
    stops_with("init=/elsewhere");
}

#[test]
fn an_environment_variable_is_refused() {
    // The kernel hands on what it does not know as the environment of its first program.
    stops_with("LD_PRELOAD=/x");
}

#[test]
fn an_appended_initramfs_is_another_machine() {
    let Some(machine) = Machine::new() else { return };
    machine.copy_image("image", |image| {
        adyton_tests::change_file(image, "guest.cpio", |bytes| {
            let again = bytes.clone();
            bytes.extend(again);
        });
    });
    let (_broker, host) = (machine.site.start_broker(), machine.site.start_host());
    machine.wait_for_message(&host, "the broker refused to release the key (measurement)");
}

#[test]
fn a_clock_set_back_makes_clients_refuse() {
    let Some(machine) = Machine::new() else { return };
    machine.add_options("-rtc base=2001-01-01T00:00:00");
    let (_broker, host) = (machine.site.start_broker(), machine.site.start_host());
    machine.wait_for_message(&host, "keys drawn");
    let outcome = machine.wait_for(|outcome| outcome.code != 30);
    assert_eq!(outcome.code, 10, "{outcome:?}");
    assert!(!host.messages().contains("ready: the model is released"), "{}", host.messages());
}

/// A table whose code, run when it is loaded, writes to the debug port: `B`, a byte of the guest's memory at 16 MiB, `A`.
/// It writes to that memory, too.
fn table_that_reads_memory() -> Vec<u8> {
    let mut aml: Vec<u8> = Vec::new();
    // OperationRegion (PORT, SystemIO, 0xE9, 1), Field (PORT, ByteAcc, NoLock, Preserve) { OUTB, 8 }
    aml.extend(b"\x5b\x80PORT\x01\x0a\xe9\x0a\x01\x5b\x81\x0bPORT\x01OUTB\x08");
    // OperationRegion (EVIL, SystemMemory, 0x01000000, 4), Field (EVIL, DWordAcc, NoLock, Preserve) { WORD, 32 }
    aml.extend(b"\x5b\x80EVIL\x00\x0c\x00\x00\x00\x01\x0a\x04\x5b\x81\x0bEVIL\x03WORD\x20");
    // Store ('B', OUTB), Store (WORD, OUTB), Store (0, WORD), Store ('A', OUTB)
    aml.extend(b"\x70\x0a\x42OUTB\x70WORDOUTB\x70\x00WORD\x70\x0a\x41OUTB");
    let mut table = b"SSDT".to_vec();
    table.extend(u32::try_from(36 + aml.len()).unwrap().to_le_bytes());
    // Revision, a sum that is set below, and who made it.
    table.extend([2, 0]);
    table.extend(b"EVIL  EVIL    \x01\x00\x00\x00EVIL\x01\x00\x00\x00");
    table.extend(aml);
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = 0u8.wrapping_sub(sum);
    table
}

#[test]
fn code_in_an_acpi_table_does_not_reach_the_guests_memory() {
    let Some(machine) = Machine::new() else { return };
    fs::write(machine.site.path("evil.aml"), table_that_reads_memory()).unwrap();
    machine.add_options("-acpitable file=evil.aml -debugcon file:port.log");
    let (_broker, host) = (machine.site.start_broker(), machine.site.start_host());
    machine.wait_until_accepted(&host);
    // The code ran; but of the memory between its two marks nothing came out, and nothing was written to it.
    let written = fs::read(machine.site.path("port.log")).unwrap();
    assert_eq!(written.escape_ascii().to_string(), "BA");
}

#[test]
fn a_device_tree_is_ignored() {
    let Some(machine) = Machine::new() else { return };
    fs::write(machine.site.path("tree.dtb"), b"\xd0\x0d\xfe\xed".repeat(64)).unwrap();
    machine.add_options("-dtb tree.dtb");
    let (_broker, host) = (machine.site.start_broker(), machine.site.start_host());
    machine.wait_until_accepted(&host);
}

#[test]
fn other_virtio_devices_are_ignored() {
    let options = "-netdev user,id=n -device virtio-net-pci,netdev=n \
        -drive if=none,id=d,file=OVMF.fd,format=raw,readonly=on -device virtio-blk-pci,drive=d \
        -object rng-random,id=r,filename=/dev/zero -device virtio-rng-pci,rng=r -device virtio-balloon-pci \
        -device virtio-serial-pci -chardev null,id=c -device virtconsole,chardev=c";
    let _ = serves_with(options);
}

#[test]
fn a_debug_console_shows_nothing() {
    let options = "-serial file:second.log -debugcon file:debugcon.log -chardev file,id=c,path=virtio.log \
        -device virtio-serial-pci -device virtconsole,chardev=c";
    let Some((machine, _broker, _host)) = serves_with(options) else { return };
    for name in ["second.log", "virtio.log", "debugcon.log"] {
        let text = fs::read(machine.site.path(name)).unwrap_or_default();
        for unwanted in ["Linux version", "adyton", "canary", "/init"] {
            let found = text.windows(unwanted.len()).any(|window| window == unwanted.as_bytes());
            assert!(!found, "{unwanted} in {name}");
        }
    }
}

#[test]
fn plugged_memory_and_processors_are_ignored() {
    let options = "-m 512,slots=2,maxmem=2G -smp 1,maxcpus=2 -qmp unix:qmp,server=on,wait=off";
    let Some((machine, _broker, host)) = serves_with(options) else { return };
    plug(
        &machine,
        "{'execute':'object-add','arguments':{'qom-type':'memory-backend-ram','id':'m1','size':268435456}}",
    );
    plug(&machine, "{'execute':'device_add','arguments':{'driver':'pc-dimm','id':'d1','memdev':'m1'}}");
    plug(
        &machine,
        "{'execute':'device_add','arguments':{'driver':'EPYC-Milan-x86_64-cpu','id':'c1','socket-id':0,'core-id':1,'thread-id':0}}",
    );
    machine.site.succeed(&["predict", &machine.site.url(), "--input", "rows.csv"]);
    assert!(!host.messages().contains("starting it again"), "{}", host.messages());
}

/// Gives the emulator one order, which it must take.
fn plug(machine: &Machine, order: &str) {
    use std::io::{BufRead as _, BufReader, Write as _};
    let stream = std::os::unix::net::UnixStream::connect(machine.site.path("qmp")).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut send = |order: &str| {
        (&stream).write_all(order.replace('\'', "\"").as_bytes()).unwrap();
        lines
            .find(|line| line.as_ref().is_ok_and(|line| line.contains("return") || line.contains("error")))
            .unwrap()
            .unwrap()
    };
    assert!(send("{'execute':'qmp_capabilities'}").contains("return"));
    let answer = send(order);
    assert!(answer.contains("return"), "{order}: {answer}");
}

/// The kernel was built without any way to load code, and `scripts/image` refuses to build one that has it.
#[test]
fn modules_cannot_be_loaded() {
    let config =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../enclave/guest/kernel.config")).unwrap();
    for off in ["MODULES", "KEXEC", "KEXEC_FILE", "HIBERNATION", "SWAP", "COREDUMP", "BPF_SYSCALL", "DEVMEM"]
    {
        assert!(config.lines().any(|line| line == format!("# CONFIG_{off} is not set")), "{off}");
    }
    let test =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../enclave/guest/test/kernel.config"))
            .unwrap();
    let more: Vec<&str> = test.lines().filter(|line| line.starts_with("CONFIG_")).collect();
    assert_eq!(
        more,
        ["CONFIG_ADYTON_TSM_SIM=y"],
        "the test kernel has the simulator's provider and nothing else"
    );
}
