//! The ACPI files that QEMU hands to firmware, in the order in which firmware measures them.
//!
//! edk2, `OvmfPkg/AcpiPlatformDxe/QemuFwCfgAcpi.c`: first the loader script itself, then each file that the script
//! allocates, when it does so. Commands have 128 bytes: the command (4 bytes), for ALLOCATE a file name of 56 bytes.
//! The files depend on every device of the machine, so they are inputs; a guest finds them under
//! `/sys/firmware/qemu_fw_cfg/by_name/etc/`.

/// The files `etc/table-loader`, `etc/acpi/rsdp` and `etc/acpi/tables`.
#[derive(Clone, Copy, Debug)]
pub struct AcpiFiles<'a> {
    /// The loader script.
    pub loader: &'a [u8],
    /// The root pointer.
    pub rsdp: &'a [u8],
    /// The tables, one after the other.
    pub tables: &'a [u8],
}

const COMMAND_LEN_BYTES: usize = 128;
const NAME_LEN_BYTES: usize = 56;
const ALLOCATE: u32 = 1;
/// QEMU's scripts have below a hundred commands.
const MAX_COMMANDS: usize = 1024;

/// What is measured, in order: a name for people and the bytes.
///
/// # Errors
/// Why the files are not a set that firmware would take, or not all of it.
pub(super) fn measured<'a>(files: &AcpiFiles<'a>) -> Result<Vec<(&'static str, &'a [u8])>, &'static str> {
    let (commands, []) = files.loader.as_chunks::<COMMAND_LEN_BYTES>() else {
        return Err("the table loader is not whole commands of 128 bytes");
    };
    if commands.len() > MAX_COMMANDS {
        return Err("the table loader has too many commands");
    }
    let mut all = vec![("ACPI table loader", files.loader)];
    for command in commands {
        let (code, rest) = command.split_first_chunk::<4>().ok_or("a command is short")?;
        if u32::from_le_bytes(*code) != ALLOCATE {
            continue;
        }
        let name = rest.get(..NAME_LEN_BYTES).ok_or("a command is short")?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let file = match name {
            b"etc/acpi/rsdp" => ("ACPI root pointer", files.rsdp),
            b"etc/acpi/tables" => ("ACPI tables", files.tables),
            _ => {
                return Err("the table loader allocates another file than etc/acpi/rsdp and etc/acpi/tables");
            }
        };
        if all.contains(&file) {
            return Err("the table loader allocates a file twice");
        }
        all.push(file);
    }
    if all.len() != 3 {
        return Err("the table loader does not allocate both etc/acpi/rsdp and etc/acpi/tables");
    }
    Ok(all)
}

/// vCPUs that the MADT of `tables` lists, if it is there and whole: local APICs and x2APICs that are enabled or can be.
pub(super) fn vcpus(tables: &[u8]) -> Option<usize> {
    let mut rest = tables;
    loop {
        let (signature, after) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_le_bytes(*after.first_chunk()?)).ok()?;
        let (table, next) = rest.split_at_checked(len)?;
        if signature == b"APIC" {
            return Some(count_vcpus(table.get(44..)?));
        }
        if len == 0 {
            return None;
        }
        rest = next;
    }
}

fn count_vcpus(mut structures: &[u8]) -> usize {
    let mut count: usize = 0;
    while let [kind, len, ..] = structures {
        let Some((structure, rest)) = structures.split_at_checked(usize::from((*len).max(2))) else { break };
        let flags = match kind {
            0 => structure.get(4..8),  // local APIC: flags at 4
            9 => structure.get(8..12), // x2APIC: flags at 8
            _ => None,
        };
        let enabled = flags.and_then(<[u8]>::first).is_some_and(|flags| flags & 1 != 0);
        count = count.saturating_add(usize::from(enabled));
        structures = rest;
    }
    count
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn command(code: u32, name: &str) -> Vec<u8> {
        let mut command = code.to_le_bytes().to_vec();
        command.extend(name.as_bytes());
        command.resize(COMMAND_LEN_BYTES, 0);
        command
    }

    pub(in super::super) fn loader() -> Vec<u8> {
        let commands = [(1, "etc/acpi/rsdp"), (1, "etc/acpi/tables"), (3, "etc/acpi/tables"), (0, "")];
        commands.iter().flat_map(|(code, name)| command(*code, name)).collect()
    }

    pub(in super::super) fn tables(vcpus: u8) -> Vec<u8> {
        let mut madt = b"APIC".to_vec();
        madt.extend((44 + 8 * u32::from(vcpus) + 12 + 16).to_le_bytes());
        madt.resize(44, 0);
        (0..vcpus).for_each(|id| madt.extend([0, 8, id, id, 1, 0, 0, 0]));
        madt.extend([1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // I/O APIC
        madt.extend([9, 16, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // x2APIC, absent
        let mut facs = b"FACS".to_vec();
        facs.extend(64_u32.to_le_bytes());
        facs.resize(64, 0);
        [facs, madt].concat()
    }

    #[test]
    fn files_in_the_order_of_the_script() {
        let loader = loader();
        let files = AcpiFiles { loader: &loader, rsdp: b"rsdp", tables: b"tables" };
        let order = |files: &AcpiFiles<'_>| {
            measured(files).map(|all| all.iter().map(|(_, bytes)| bytes.len()).collect())
        };
        assert_eq!(order(&files), Ok(vec![512, 4, 6]));
        let other = [command(1, "etc/acpi/tables"), command(1, "etc/acpi/rsdp")].concat();
        assert_eq!(order(&AcpiFiles { loader: &other, ..files }), Ok(vec![256, 6, 4]));
    }

    #[test]
    fn a_script_for_more_or_fewer_files_is_refused() {
        let error = |loader: &[u8]| measured(&AcpiFiles { loader, rsdp: b"r", tables: b"t" }).unwrap_err();
        assert!(error(&[0; 127]).contains("not whole commands"));
        assert!(error(&[]).contains("does not allocate both"));
        assert!(error(&command(1, "etc/acpi/rsdp")).contains("does not allocate both"));
        assert!(error(&[loader(), command(1, "etc/acpi/rsdp")].concat()).contains("twice"));
        assert!(error(&[loader(), command(1, "etc/vmgenid_guid")].concat()).contains("another file"));
        assert!(error(&[0; 128 * 1025]).contains("too many"));
    }

    #[test]
    fn vcpus_of_the_tables() {
        assert_eq!(vcpus(&tables(3)), Some(3));
        assert_eq!(vcpus(&[]), None);
        assert_eq!(vcpus(b"DSDT\0\0\0\0rest"), None);
        assert_eq!(vcpus(&tables(3)[..80]), None);
        assert_eq!(count_vcpus(&[0, 0, 0, 8, 0]), 0, "a structure of no length ends");
    }
}
