//! A firmware image of a TD, or a kernel that a fixed one starts.
#![no_main]
use adyton_attestation::measurement::tdx::{BootSeparator, InitrdArgument, Kernel, KernelForm, Launch, PageOrder, measure};
use libfuzzer_sys::fuzz_target;

/// One page with one section of temporary memory.
fn firmware() -> Vec<u8> {
    let mut metadata = b"TDVF".to_vec();
    metadata.extend([48, 1, 1, 0, 0].map(u32::to_le_bytes).concat());
    metadata.extend([0_u64, 4096].map(u64::to_le_bytes).concat());
    metadata.extend([3_u32, 0].map(u32::to_le_bytes).concat());
    let mut footer = [4096_u32.to_le_bytes().as_slice(), &22_u16.to_le_bytes()].concat();
    footer.extend(0x35657ae44a989847865e4685a7bf8ec2_u128.to_be_bytes());
    footer.extend(40_u16.to_le_bytes());
    footer.extend(0xde82b596b21ff745baeaa366c55a082d_u128.to_be_bytes());
    let mut image = vec![0; 4096];
    image[..metadata.len()].copy_from_slice(&metadata);
    let end = image.len() - 32;
    image[end - footer.len()..end].copy_from_slice(&footer);
    image
}

fn launch(firmware: &[u8]) -> Launch<'_> {
    Launch {
        firmware,
        page_order: PageOrder::Interleaved,
        platform: None,
        kernel: None,
        boot_separator: BootSeparator::Rtmr1,
        vcpus: None,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = measure(&launch(bytes));
    let fixed = firmware();
    assert!(measure(&launch(&fixed)).is_ok());
    for form in [KernelForm::File, KernelForm::QemuPatched { memory_bytes: 2 << 30 }] {
        let kernel =
            Kernel { kernel: bytes, form, initrd: b"initrd", cmdline: "quiet", initrd_argument: InitrdArgument::None };
        let _ = measure(&Launch { kernel: Some(kernel), ..launch(&fixed) });
    }
});
