//! The command line of one machine: a pure function of configuration, image and document.
//!
//! The measured parts (firmware, kernel, initramfs, command line, processors, document) come from the image and the
//! configuration and from nowhere else. What is not measured (memory size, devices, clock) is as little as a guest can
//! run on: one vsock device and one serial line.

use std::ffi::OsString;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};

use super::image::Image;
use super::{Accelerator, Platform, REPORT_PORT, Vm, Vsock};

/// Name of the socket in the runtime folder between emulator and user-space vsock device.
pub(crate) const DEVICE_SOCKET: &str = "device";
/// Name of the socket by which the host calls the guest; with a port behind it, of those the guest calls.
pub(crate) const GUEST_SOCKET: &str = "guest";

/// Name of the socket at which the emulator calls the host, to say how the machine ends.
pub(crate) const CONTROL_SOCKET: &str = "control";

/// A program and its arguments.
pub(crate) type Line = Vec<OsString>;

/// The command line for `vm` with `document`, and sockets in the folder `runtime`.
pub(crate) fn machine(vm: &Vm, image: &Image, document: &[u8], runtime: &Path) -> Line {
    let mut line = match vm.platform {
        Platform::Simulated => simulated(vm, image, runtime),
        Platform::SevSnp => sev_snp(vm, image, document),
        Platform::Tdx => tdx(vm, image, document),
    };
    push(&mut line, ["-accel", accelerator(vm.accelerator), "-m", &vm.memory_mib.to_string()]);
    // Nothing that was not asked for, no second try after a stop, and the guest's lines on standard output.
    push(&mut line, ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    vsock(&mut line, vm, runtime);
    line.extend(["-chardev".into(), socket("control", &runtime.join(CONTROL_SOCKET))]);
    push(&mut line, ["-mon", "chardev=control,mode=control"]);
    line
}

/// The command line of the vsock device in user space, if there is one.
pub(crate) fn device(vm: &Vm, runtime: &Path) -> Option<Line> {
    let Vsock::User(program) = &vm.vsock else { return None };
    let mut machine = OsString::from(format!("guest-cid={},socket=", vm.cid));
    machine.push(runtime.join(DEVICE_SOCKET));
    machine.push(",uds-path=");
    machine.push(runtime.join(GUEST_SOCKET));
    Some(vec![program.into(), "--vm".into(), machine])
}

fn push<const N: usize>(line: &mut Line, words: [&str; N]) {
    line.extend(words.map(OsString::from));
}

fn accelerator(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg,thread=multi",
    }
}

/// The simulator takes what is measured, measures it, and starts the emulator with exactly that.
fn simulated(vm: &Vm, image: &Image, runtime: &Path) -> Line {
    let empty = Path::new("");
    let mut port = runtime.join(GUEST_SOCKET).into_os_string();
    port.push(format!("_{REPORT_PORT}"));
    let mut line: Line = vec![vm.simulator.as_deref().unwrap_or(empty).into(), "launch-vm".into()];
    let files = [
        ("--dir", vm.simulator_dir.as_deref().unwrap_or(empty)),
        ("--firmware", &vm.firmware),
        ("--kernel", &image.kernel),
        ("--initrd", &image.initrd),
        ("--document", &vm.document),
        ("--port", Path::new(&port)),
    ];
    for (option, path) in files {
        line.extend([option.into(), path.into()]);
    }
    push(
        &mut line,
        ["--cmdline", &image.cmdline, "--vcpus", &vm.vcpus.to_string(), "--vcpu-type", &vm.vcpu_type],
    );
    line.extend(["--".into(), OsString::from(&vm.qemu)]);
    push(&mut line, ["-machine", "q35,memory-backend=ram0"]);
    shared_memory(&mut line, vm);
    line
}

/// Firmware, kernel, initramfs, command line and processors.
fn measured(vm: &Vm, image: &Image, cpu: &str) -> Line {
    let mut line: Line = vec![OsString::from(&vm.qemu)];
    for (option, path) in [("-bios", &vm.firmware), ("-kernel", &image.kernel), ("-initrd", &image.initrd)] {
        line.extend([option.into(), OsString::from(path)]);
    }
    push(&mut line, ["-append", &image.cmdline, "-smp", &vm.vcpus.to_string(), "-cpu", cpu]);
    line
}

fn sev_snp(vm: &Vm, image: &Image, document: &[u8]) -> Line {
    let mut line = measured(vm, image, &vm.vcpu_type);
    push(&mut line, ["-machine", "q35,confidential-guest-support=sev0,memory-backend=ram0"]);
    shared_memory(&mut line, vm);
    let host_data = BASE64.encode(Sha256::digest(document));
    let mut guest = format!(
        "sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy={:#x},kernel-hashes=on,host-data={host_data}",
        vm.policy
    );
    if let Some(id) = &vm.id_block {
        guest += &format!(",id-block={},id-auth={}", id.block, id.auth);
    }
    push(&mut line, ["-object", &guest]);
    line
}

fn tdx(vm: &Vm, image: &Image, document: &[u8]) -> Line {
    // Which processor a TD sees is the TDX module's affair.
    let mut line = measured(vm, image, "host");
    push(
        &mut line,
        ["-machine", "q35,kernel-irqchip=split,confidential-guest-support=tdx0,memory-backend=ram0"],
    );
    shared_memory(&mut line, vm);
    // MRCONFIGID, 48 bytes: the hash of the document, then zeros.
    let mut config_id = Sha256::digest(document).to_vec();
    config_id.resize(48, 0);
    let guest = format!(
        r#"{{"qom-type":"tdx-guest","id":"tdx0","mrconfigid":"{}","quote-generation-socket":{{"type":"vsock","cid":"2","port":"4050"}}}}"#,
        BASE64.encode(config_id)
    );
    push(&mut line, ["-object", &guest]);
    line
}

fn shared_memory(line: &mut Line, vm: &Vm) {
    let size = vm.memory_mib;
    push(line, ["-object", &format!("memory-backend-memfd,id=ram0,size={size}M,share=on")]);
}

fn vsock(line: &mut Line, vm: &Vm, runtime: &Path) {
    match &vm.vsock {
        // Through memory that the host may see, which confidential guests need to be told.
        Vsock::Kernel => {
            let cid = vm.cid;
            let device = format!("vhost-vsock-pci,guest-cid={cid},iommu_platform=on,disable-legacy=on");
            push(line, ["-device", &device]);
        }
        Vsock::User(_) => {
            line.extend(["-chardev".into(), socket("vsock0", &runtime.join(DEVICE_SOCKET))]);
            push(line, ["-device", "vhost-user-vsock-pci,chardev=vsock0,disable-legacy=on"]);
        }
    }
}

/// A socket that the emulator calls.
fn socket(id: &str, path: &Path) -> OsString {
    let mut socket = OsString::from(format!("socket,id={id},path="));
    socket.push(path);
    socket
}

#[cfg(test)]
mod tests;
