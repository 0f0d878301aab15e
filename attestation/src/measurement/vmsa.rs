//! The save area (VMSA) a vCPU starts with, as each hypervisor fills it in: one measured page for each vCPU.
//!
//! Layout: AMD64 APM volume 2 (24593), table B-4. Values: the reset state of that manual, section 14.1.3, and what
//! each hypervisor makes of it. A hypervisor adds what it likes to the reset state, so these differ by vendor.

use super::chain::PAGE_LEN_BYTES;
use super::snp::Vmm;

/// Where the first vCPU starts: the reset vector.
pub(super) const RESET_VECTOR: u32 = 0xffff_fff0;
/// PAT at reset; APM volume 2, section 7.8.2.
const RESET_PAT: u64 = 0x0007_0406_0007_0406;
/// PAT as Google's hypervisor sets it.
const GCE_PAT: u64 = 0x0007_0106;
/// RDX at reset where the hypervisor does not put the signature of the CPU there.
const RESET_RDX: u64 = 0x600;
/// MXCSR and the x87 control word at reset.
const RESET_MXCSR: u32 = 0x1f80;
const RESET_FCW: u16 = 0x37f;
/// SEV_FEATURES with only bit 0, SNP active.
pub(super) const SNP_ACTIVE: u64 = 1;

/// A segment register: selector, attributes, limit and base.
#[derive(Clone, Copy)]
struct Segment(u16, u16, u32, u64);

/// Registers that differ between launches.
struct Start {
    /// Offset in the page, value.
    segments: [(usize, Segment); 10],
    cr0: u64,
    rip: u64,
    pat: u64,
    rdx: u64,
    features: u64,
    mxcsr: u32,
    fcw: u16,
}

/// The save area of a vCPU that starts in real mode at `address`.
pub(super) fn real_mode(address: u32, signature: u32, features: u64, vmm: Vmm) -> [u8; PAGE_LEN_BYTES] {
    let (ss, tr) = if vmm == Vmm::Ec2 { (0x92, 0x83) } else { (0x93, 0x8b) };
    let cs = if vmm == Vmm::Ec2 && address == RESET_VECTOR { 0x9a } else { 0x9b };
    let data = Segment(0, 0x93, 0xffff, 0);
    let code = Segment(0xf000, cs, 0xffff, u64::from(address & 0xffff_0000));
    let (rdx, mxcsr, fcw) = match vmm {
        Vmm::Qemu => (u64::from(signature), RESET_MXCSR, RESET_FCW),
        Vmm::Ec2 | Vmm::Gce => (RESET_RDX, 0, 0),
    };
    page(&Start {
        segments: segments(code, Segment(0, ss, 0xffff, 0), data, data, tr),
        cr0: 0x10,
        rip: u64::from(address & 0xffff),
        pat: if vmm == Vmm::Gce { GCE_PAT } else { RESET_PAT },
        rdx,
        features,
        mxcsr,
        fcw,
    })
}

/// The save area of a vCPU that starts in a QEMU guest's SVSM, in flat protected mode at `address`. The x87 control
/// word is zero here, as in the one published calculation of this mode.
pub(super) fn svsm(address: u64, signature: u32) -> [u8; PAGE_LEN_BYTES] {
    let flat = Segment(16, 0xc93, 0xffff_ffff, 0);
    let code = Segment(8, 0xc9b, 0xffff_ffff, 0);
    page(&Start {
        segments: segments(code, flat, flat, Segment(0, 0x93, 0xffff, 0), 0x8b),
        cr0: 0x11,
        rip: address,
        pat: RESET_PAT,
        rdx: u64::from(signature),
        features: SNP_ACTIVE,
        mxcsr: RESET_MXCSR,
        fcw: 0,
    })
}

const fn segments(code: Segment, ss: Segment, data: Segment, gs: Segment, tr: u16) -> [(usize, Segment); 10] {
    let table = Segment(0, 0, 0xffff, 0);
    [
        (0x00, data),                        // ES
        (0x10, code),                        // CS
        (0x20, ss),                          // SS
        (0x30, data),                        // DS
        (0x40, data),                        // FS
        (0x50, gs),                          // GS
        (0x60, table),                       // GDTR
        (0x70, Segment(0, 0x82, 0xffff, 0)), // LDTR
        (0x80, table),                       // IDTR
        (0x90, Segment(0, tr, 0xffff, 0)),   // TR
    ]
}

fn page(start: &Start) -> [u8; PAGE_LEN_BYTES] {
    let mut page = [0; PAGE_LEN_BYTES];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    for (at, Segment(selector, attributes, limit, base)) in start.segments {
        put(at, &selector.to_le_bytes());
        put(at + 2, &attributes.to_le_bytes());
        put(at + 4, &limit.to_le_bytes());
        put(at + 8, &base.to_le_bytes());
    }
    let registers: [(usize, u64); 11] = [
        (0x0d0, 0x1000), // EFER, SVME set by KVM
        (0x148, 0x40),   // CR4, MCE set by KVM
        (0x158, start.cr0),
        (0x160, 0x400),       // DR7
        (0x168, 0xffff_0ff0), // DR6
        (0x170, 2),           // RFLAGS
        (0x178, start.rip),
        (0x268, start.pat),
        (0x310, start.rdx),
        (0x3b0, start.features), // SEV_FEATURES
        (0x3e8, 1),              // XCR0
    ];
    for (at, value) in registers {
        put(at, &value.to_le_bytes());
    }
    put(0x408, &start.mxcsr.to_le_bytes());
    put(0x410, &start.fcw.to_le_bytes());
    page
}
