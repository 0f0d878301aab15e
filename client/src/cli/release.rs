//! `adyton measure release`: the signed reference values of one guest image.

use std::path::{Path, PathBuf};

use adyton_attestation::commit::hash;
use adyton_attestation::measurement::ovmf::MAX_FIRMWARE_LEN_BYTES;
use adyton_attestation::measurement::snp::{Kernel, Launch, VcpuSignature, Vmm, measure};
use adyton_attestation::reference::{ReferenceValues, Value};
use adyton_broker::{load_publisher, read_capped, write_whole};
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::{Failure, Printed};

const MAX_DESCRIPTION_LEN: u64 = 64 << 10;
const MAX_FILE_LEN: u64 = 1 << 30;
/// SEV_FEATURES: SNP active, and nothing else.
const GUEST_FEATURES: u64 = 1;

#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton measure release --image image/ --firmware OVMF.amdsev.fd --vcpus 2,4 \\\n    \
                  --vcpu-type EPYC-Milan,EPYC-Genoa --publisher publisher.key --out reference.cose\n\n\
                  Relying parties name the file and the publisher's key in their [evidence] table:\n  \
                  reference_values = \"reference.cose\"\n  publisher_key = \"...\""
)]
pub(crate) struct ReleaseArgs {
    /// Folder of the image, with image.toml.
    #[arg(long)]
    image: PathBuf,
    /// Firmware images it is started with.
    #[arg(long, required = true, value_delimiter = ',')]
    firmware: Vec<PathBuf>,
    /// Numbers of vCPUs.
    #[arg(long, required = true, value_delimiter = ',')]
    vcpus: Vec<u32>,
    /// QEMU's CPU models.
    #[arg(long, required = true, value_delimiter = ',')]
    vcpu_type: Vec<String>,
    /// The publisher's key (`adyton key publisher`).
    #[arg(long, env = "ADYTON_PUBLISHER")]
    publisher: PathBuf,
    /// Where to write the signed values.
    #[arg(long)]
    out: PathBuf,
}

/// `image.toml`, as `scripts/image` writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    version: u32,
    release: String,
    variant: String,
    kernel_sha256: String,
    initrd_sha256: String,
    cmdline: String,
}

struct Image {
    description: Description,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
}

/// Reads an image whose files are what its description says.
fn read_image(folder: &Path) -> Result<Image, Failure> {
    let text = read_capped(&folder.join("image.toml"), MAX_DESCRIPTION_LEN)?;
    let text = std::str::from_utf8(&text).map_err(|error| Failure::own(format!("image.toml: {error}")))?;
    let description: Description =
        toml::from_str(text).map_err(|error| Failure::own(format!("image.toml: {error}")))?;
    if description.version != 1 || !["production", "test"].contains(&description.variant.as_str()) {
        return Err(Failure::own("image.toml: another version or variant than this program knows"));
    }
    let file = |name: &str, sha256: &str| -> Result<Vec<u8>, Failure> {
        let bytes = read_capped(&folder.join(name), MAX_FILE_LEN)?.to_vec();
        if hex::encode(hash(&bytes)) == sha256 {
            Ok(bytes)
        } else {
            Err(Failure::own(format!("{name} is not the file that image.toml describes")))
        }
    };
    let kernel = file("vmlinuz", &description.kernel_sha256)?;
    let initrd = file("guest.cpio", &description.initrd_sha256)?;
    Ok(Image { description, kernel, initrd })
}

pub(crate) fn run(args: &ReleaseArgs) -> Result<Printed, Failure> {
    let image = read_image(&args.image)?;
    let mut values = Vec::new();
    for path in &args.firmware {
        let firmware = read_capped(path, MAX_FIRMWARE_LEN_BYTES as u64)?;
        for vcpus in &args.vcpus {
            for vcpu_type in &args.vcpu_type {
                values.push(value(&image, &firmware, *vcpus, vcpu_type)?);
            }
        }
    }
    let reference = ReferenceValues {
        release: image.description.release.clone(),
        test: image.description.variant == "test",
        kernel: hash(&image.kernel),
        initrd: hash(&image.initrd),
        cmdline: image.description.cmdline.clone(),
        values,
    };
    write_whole(&args.out, &reference.sign(&load_publisher(&args.publisher)?))?;
    Ok(print(&reference))
}

fn value(image: &Image, firmware: &[u8], vcpus: u32, vcpu_type: &str) -> Result<Value, Failure> {
    let vcpu_signature = VcpuSignature::from_model_name(vcpu_type)
        .ok_or_else(|| Failure::own(format!("unknown vCPU type {vcpu_type}")))?;
    let cmdline = &image.description.cmdline;
    let measurement = measure(&Launch {
        firmware,
        svsm: None,
        kernel: Some(Kernel { kernel: &image.kernel, initrd: &image.initrd, cmdline }),
        vcpus,
        vcpu_signature,
        guest_features: GUEST_FEATURES,
        vmm: Vmm::Qemu,
    });
    let measurement = measurement.map_err(|error| Failure::own(error.to_string()))?.digest;
    Ok(Value { firmware: hash(firmware), vcpus, vcpu_type: vcpu_type.to_owned(), measurement })
}

fn print(reference: &ReferenceValues) -> Printed {
    let mut text = format!("# release {}: kernel {}\n", reference.release, hex::encode(reference.kernel));
    let mut values = Vec::new();
    for value in &reference.values {
        let (firmware, measurement) = (hex::encode(value.firmware), hex::encode(value.measurement));
        text += &format!("# {} vCPUs {}, firmware {firmware}\n{measurement}\n", value.vcpus, value.vcpu_type);
        values.push(json!({
            "firmware": firmware, "vcpus": value.vcpus, "vcpu_type": value.vcpu_type, "measurement": measurement,
        }));
    }
    let json = json!({
        "release": reference.release, "test": reference.test, "kernel": hex::encode(reference.kernel),
        "initrd": hex::encode(reference.initrd), "cmdline": reference.cmdline, "values": values,
    });
    Printed::new(json, text)
}
