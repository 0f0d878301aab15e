//! A Linux kernel that the hypervisor hands over: the bytes that firmware measures, and what its EFI stub measures.
//!
//! Linux, `Documentation/arch/x86/boot.rst` (the setup header) and `drivers/firmware/efi/libstub` (tagged events);
//! QEMU, `hw/i386/x86-common.c`, `x86_load_linux`, which writes into the setup header before it hands the kernel over.

use super::td_hob;

/// The header begins with this at 0x202.
const HEADER_MAGIC: &[u8; 4] = b"HdrS";
/// Protocol 2.12 has all fields below; EFI stubs that measure are of later kernels.
const MIN_PROTOCOL: u16 = 0x20c;
/// Fields end here.
const HEADER_END: usize = 0x238;
/// TYPE_OF_LOADER at 0x210: QEMU, version 0.
const LOADER_QEMU: u8 = 0xb0;
/// LOADFLAGS at 0x211.
const LOADED_HIGH: u8 = 0x01;
const CAN_USE_HEAP: u8 = 0x80;
/// XLOADFLAGS at 0x236.
const CAN_BE_LOADED_ABOVE_4G: u16 = 0x02;
/// Where QEMU puts the command line; the real-mode part is at 0x10000.
const CMDLINE_ADDRESS: u32 = 0x2_0000;
const HEAP_END: u16 = 0xfe00; // command line less real-mode part less 0x200
/// What Q35 keeps free at the end of low memory for ACPI tables.
const ACPI_DATA_LEN_BYTES: u64 = 0x2_8000;

/// What firmware gets to see of the kernel file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelForm {
    /// The file as it is: QEMU 10.0 and later with firmware that asks for it.
    File,
    /// With the setup header as QEMU fills it in, for a guest of so much memory.
    QemuPatched {
        /// Memory of the guest.
        memory_bytes: u64,
    },
}

/// Whether firmware tells the kernel where its RAM disk is, and where in the load options it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitrdArgument {
    /// The load options are the command line alone.
    None,
    /// `initrd=initrd ` before the command line: edk2's `GenericQemuLoadImageLib` since it can start a shim.
    Before,
    /// ` initrd=initrd` after it: earlier edk2.
    After,
}

impl InitrdArgument {
    /// By its name on the command line: `none`, `before` or `after`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::None,
            "before" => Self::Before,
            "after" => Self::After,
            _ => return None,
        })
    }
}

/// What the EFI stub measures as LoadOptions: UTF-16, little-endian, with the zero that ends it.
pub(super) fn load_options(cmdline: &str, argument: InitrdArgument) -> Vec<u8> {
    let (before, after) = match argument {
        InitrdArgument::None => ("", ""),
        InitrdArgument::Before => ("initrd=initrd ", ""),
        InitrdArgument::After => ("", " initrd=initrd"),
    };
    let text = format!("{before}{cmdline}{after}\0");
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// `kernel` as QEMU leaves it for a guest of `memory_bytes`.
///
/// # Errors
/// What QEMU would do that is not known here, or why it would refuse.
pub(super) fn patched(
    kernel: &[u8],
    initrd_len: usize,
    cmdline: &str,
    memory_bytes: u64,
) -> Result<Vec<u8>, &'static str> {
    let header = kernel.get(..HEADER_END).ok_or("the kernel is too short")?;
    if header.get(0x202..).and_then(<[u8]>::first_chunk) != Some(HEADER_MAGIC) {
        return Err("the kernel has no setup header: give a bzImage");
    }
    let short =
        |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).map(|field| u16::from_le_bytes(*field));
    let protocol = short(0x206).unwrap_or_default();
    let loadflags = header.get(0x211).copied().unwrap_or_default();
    if protocol < MIN_PROTOCOL || loadflags & LOADED_HIGH == 0 {
        return Err("the kernel's boot protocol is below 2.12 or it is not loaded high: it is too old");
    }
    if cmdline.contains("vga=") {
        return Err("QEMU writes the video mode of vga= into the kernel: leave it out of the command line");
    }
    let mut fields: Vec<(usize, Vec<u8>)> = vec![
        (0x210, vec![LOADER_QEMU, loadflags | CAN_USE_HEAP]),
        (0x224, HEAP_END.to_le_bytes().to_vec()),
        (0x228, CMDLINE_ADDRESS.to_le_bytes().to_vec()),
    ];
    if initrd_len > 0 {
        let above = short(0x236).unwrap_or_default() & CAN_BE_LOADED_ABOVE_4G != 0;
        let initrd_max = header.get(0x22c..).and_then(<[u8]>::first_chunk);
        let initrd_max = initrd_max.map(|field| u32::from_le_bytes(*field)).unwrap_or_default();
        let allowed = if above { u32::MAX } else { initrd_max };
        let (address, len) = initrd_place(initrd_len, allowed, memory_bytes)?;
        fields.push((0x218, [address, len].map(u32::to_le_bytes).concat()));
    }
    let mut patched = kernel.to_vec();
    for (at, bytes) in fields {
        // All end before HEADER_END, which the kernel has.
        patched[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    Ok(patched)
}

/// Address and size of the RAM disk: as high as it may be, up to `allowed`.
fn initrd_place(len: usize, allowed: u32, memory_bytes: u64) -> Result<(u32, u32), &'static str> {
    let too_large = "the RAM disk does not fit below the end of low memory";
    let usable = td_hob::low_end(memory_bytes).checked_sub(ACPI_DATA_LEN_BYTES).ok_or(too_large)?;
    let last = usable.checked_sub(1).ok_or(too_large)?;
    let max = u32::try_from(last.min(allowed.into())).map_err(|_| too_large)?;
    let len = u32::try_from(len).ok().filter(|len| *len < max).ok_or(too_large)?;
    Ok(((max - len) & !0xfff, len))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::authenticode::tests::image;
    use super::*;

    /// A PE image that is also a kernel of protocol 2.15.
    pub(in super::super) fn kernel() -> Vec<u8> {
        let mut kernel = image(b"", 0);
        kernel[0x202..0x206].copy_from_slice(HEADER_MAGIC);
        kernel[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        kernel[0x211] = LOADED_HIGH;
        kernel[0x236] = 0x3f;
        kernel
    }

    fn initrd_address(memory_bytes: u64, above_4g: bool) -> u32 {
        let mut kernel = kernel();
        kernel[0x236] = if above_4g { 0x02 } else { 0x40 };
        kernel[0x22c..0x230].copy_from_slice(&0x37ff_ffff_u32.to_le_bytes());
        let patched = patched(&kernel, 0x12_3456, "", memory_bytes).unwrap();
        assert_eq!(patched[0x21c..0x220], 0x12_3456_u32.to_le_bytes());
        u32::from_le_bytes(*patched[0x218..].first_chunk().unwrap())
    }

    #[test]
    fn the_header_as_qemu_fills_it_in() {
        let before = kernel();
        let after = patched(&before, 0, "quiet", 0x8000_0000).unwrap();
        assert_eq!(after[0x210..0x212], [0xb0, 0x81]);
        assert_eq!(after[0x224..0x22c], [0, 0xfe, 0, 0, 0, 0, 2, 0]);
        assert_eq!(after[0x218..0x220], [0; 8], "no RAM disk");
        let changed: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        assert!(changed.iter().all(|at| (0x210..0x22c).contains(at)), "{changed:x?}");
    }

    #[test]
    fn the_ram_disk_is_as_high_as_it_may_be() {
        assert_eq!(initrd_address(0x8000_0000, true), (0x8000_0000 - 0x2_8000 - 1 - 0x12_3456) & !0xfff);
        assert_eq!(initrd_address(0x8000_0000, true), initrd_address(0xb000_0000, true));
        assert_eq!(initrd_address(0xb000_0000, true), initrd_address(1 << 40, true));
        assert_ne!(initrd_address(0x9000_0000, true), initrd_address(0x8000_0000, true));
        assert_eq!(initrd_address(0x8000_0000, false), (0x37ff_ffff - 0x12_3456) & !0xfff);
    }

    #[test]
    fn what_qemu_would_do_otherwise_is_refused() {
        let error = |change: fn(&mut Vec<u8>)| {
            let mut kernel = kernel();
            change(&mut kernel);
            patched(&kernel, 1, "", 0x8000_0000).unwrap_err()
        };
        assert_eq!(error(|kernel| kernel.truncate(0x237)), "the kernel is too short");
        assert!(error(|kernel| kernel[0x202] = 0).contains("no setup header"));
        assert!(error(|kernel| kernel[0x206] = 0x0b).contains("too old"));
        assert!(error(|kernel| kernel[0x211] = 0).contains("too old"));
        assert!(patched(&kernel(), 0, "a vga=1", 1 << 31).unwrap_err().contains("vga="));
        for (len, memory) in [(0x8000_0000, 0x8000_0000), (1, 0x2_8000), (1, 0x1000)] {
            assert!(patched(&kernel(), len, "", memory).unwrap_err().contains("does not fit"));
        }
    }

    #[test]
    fn load_options_are_utf_16_with_their_zero() {
        assert_eq!(load_options("aé", InitrdArgument::None), [b'a', 0, 0xe9, 0, 0, 0]);
        let text = |argument| {
            let bytes = load_options("quiet", argument);
            bytes.iter().step_by(2).map(|byte| char::from(*byte)).collect::<String>()
        };
        assert_eq!(text(InitrdArgument::Before), "initrd=initrd quiet\0");
        assert_eq!(text(InitrdArgument::After), "quiet initrd=initrd\0");
    }
}
