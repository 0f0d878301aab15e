//! Command lines as text: what an operator would type.

use super::super::config::tests::{SIMULATED, hardware, vm};
use super::super::image::Variant;
use super::*;

fn image() -> Image {
    Image {
        kernel: "image/vmlinuz".into(),
        initrd: "image/guest.cpio".into(),
        cmdline: "quiet panic=-1".into(),
        variant: Variant::Test,
    }
}

fn text(vm: &Vm) -> String {
    let line = machine(vm, &image(), b"document", Path::new("/run/one"));
    line.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn sev_snp_measures_the_kernel_and_binds_the_document() {
    let host_data = BASE64.encode(Sha256::digest(b"document"));
    assert_eq!(
        text(&hardware("sev-snp")),
        format!(
            "qemu-system-x86_64 -bios OVMF.fd -kernel image/vmlinuz -initrd image/guest.cpio -append quiet panic=-1 \
             -smp 1 -cpu EPYC-Milan -machine q35,confidential-guest-support=sev0,memory-backend=ram0 \
             -object memory-backend-memfd,id=ram0,size=512M,share=on \
             -object sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on,host-data={host_data} \
             -accel kvm -m 512 -nodefaults -no-user-config -no-reboot -display none -serial stdio \
             -device vhost-vsock-pci,guest-cid=4,iommu_platform=on,disable-legacy=on \
             -chardev socket,id=control,path=/run/one/control -mon chardev=control,mode=control"
        )
    );
    let mut signed = hardware("sev-snp");
    signed.id_block = Some(super::super::config::IdBlock { block: "AAAA".into(), auth: "BBBB".into() });
    assert!(text(&signed).contains(",id-block=AAAA,id-auth=BBBB "));
}

#[test]
fn tdx_binds_the_document_in_mrconfigid() {
    let mut config_id = Sha256::digest(b"document").to_vec();
    config_id.extend([0; 16]);
    let config_id = BASE64.encode(config_id);
    assert_eq!(
        text(&hardware("tdx")),
        format!(
            "qemu-system-x86_64 -bios OVMF.fd -kernel image/vmlinuz -initrd image/guest.cpio -append quiet panic=-1 \
             -smp 1 -cpu host -machine q35,kernel-irqchip=split,confidential-guest-support=tdx0,memory-backend=ram0 \
             -object memory-backend-memfd,id=ram0,size=512M,share=on \
             -object {{\"qom-type\":\"tdx-guest\",\"id\":\"tdx0\",\"mrconfigid\":\"{config_id}\",\
             \"quote-generation-socket\":{{\"type\":\"vsock\",\"cid\":\"2\",\"port\":\"4050\"}}}} \
             -accel kvm -m 512 -nodefaults -no-user-config -no-reboot -display none -serial stdio \
             -device vhost-vsock-pci,guest-cid=4,iommu_platform=on,disable-legacy=on \
             -chardev socket,id=control,path=/run/one/control -mon chardev=control,mode=control"
        )
    );
}

#[test]
fn the_simulator_gets_what_is_measured_and_the_emulator_the_rest() {
    let text = text(&vm(SIMULATED));
    let (simulator, emulator) = text.split_once(" -- ").unwrap();
    assert_eq!(
        simulator,
        "bin/adyton-simulator launch-vm --dir simulator --firmware OVMF.fd --kernel image/vmlinuz \
         --initrd image/guest.cpio --document launch.toml --port /run/one/guest_7004 --cmdline quiet panic=-1 --vcpus 1 \
         --vcpu-type EPYC-Milan"
    );
    for measured in ["-bios", "-kernel", "-initrd", "-append", "-smp", "-cpu"] {
        assert!(!emulator.contains(&format!(" {measured} ")), "{measured} in {emulator}");
    }
    assert!(emulator.starts_with("qemu-system-x86_64 -machine q35,memory-backend=ram0 "), "{emulator}");
    assert!(
        emulator.contains("-accel tcg,thread=multi") && emulator.contains("vhost-user-vsock-pci"),
        "{emulator}"
    );
}

#[test]
fn no_machine_has_a_monitor_for_others_a_network_or_a_second_device() {
    for vm in [vm(SIMULATED), hardware("sev-snp"), hardware("tdx")] {
        let text = text(&vm);
        for unwanted in [
            "-monitor",
            "-qmp",
            "-netdev",
            "-nic",
            "-gdb",
            " -s ",
            "hotplug",
            "maxmem",
            "maxcpus",
            "virtio-net",
        ] {
            assert!(!text.contains(unwanted), "{unwanted} in {text}");
        }
        assert_eq!(text.matches("-device").count(), 1, "{text}");
        // The emulator calls the host that started it; nobody can call the emulator.
        assert_eq!(text.matches("-mon ").count(), 1, "{text}");
        assert!(!text.contains("server"), "{text}");
        assert!(text.contains("-nodefaults") && text.contains("-no-reboot"), "{text}");
    }
}

#[test]
fn the_user_space_device_has_the_machines_sockets() {
    let line = device(&vm(SIMULATED), Path::new("/run/one")).unwrap();
    let words: Vec<&str> = line.iter().map(|word| word.to_str().unwrap()).collect();
    let wanted = "guest-cid=4,socket=/run/one/device,uds-path=/run/one/guest";
    assert_eq!(words, ["vhost-device-vsock", "--vm", wanted]);
    assert!(device(&hardware("tdx"), Path::new("/run")).is_none());
}
