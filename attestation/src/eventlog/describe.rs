//! What the data of an event says, in one line.
//!
//! The data is the host's or the guest's to write, so nothing here fails: what cannot be read is shown as its length, and
//! text is escaped and cut, so that a log cannot play tricks on a terminal.

use super::device_path;
use super::event::{
    EV_EFI_BOOT_SERVICES_APPLICATION, EV_EFI_GPT_EVENT, EV_EFI_HANDOFF_TABLES2,
    EV_EFI_PLATFORM_FIRMWARE_BLOB2, EV_EFI_RUNTIME_SERVICES_DRIVER, EV_EFI_VARIABLE_AUTHORITY,
    EV_EFI_VARIABLE_BOOT, EV_EFI_VARIABLE_BOOT2, EV_EFI_VARIABLE_DRIVER_CONFIG, EV_EVENT_TAG, EV_SEPARATOR,
    RUNTIME_EVENT,
};
use crate::hex_string;

/// Longer text is cut here.
const MAX_SHOWN_CHARS: usize = 200;
/// Longer data is shown by its length.
const MAX_SHOWN_BYTES: usize = 32;

pub(super) fn describe(event_type: u32, data: &[u8], name: Option<&str>) -> String {
    let read = match event_type {
        EV_EFI_VARIABLE_DRIVER_CONFIG
        | EV_EFI_VARIABLE_BOOT
        | EV_EFI_VARIABLE_BOOT2
        | EV_EFI_VARIABLE_AUTHORITY => variable(data),
        EV_EFI_BOOT_SERVICES_APPLICATION..=EV_EFI_RUNTIME_SERVICES_DRIVER => image(data),
        EV_EFI_PLATFORM_FIRMWARE_BLOB2 => blob(data),
        EV_EFI_HANDOFF_TABLES2 => counted_text(data).map(|(text, _)| quoted(text)),
        EV_EFI_GPT_EVENT => gpt(data),
        EV_EVENT_TAG => tagged(data),
        EV_SEPARATOR => Some(format!("separator {}", shown(data))),
        RUNTIME_EVENT => Some(shown(data)),
        _ => None,
    };
    let text = read.or_else(|| text(data)).unwrap_or_else(|| shown(data));
    match name {
        Some(name) => format!("{} = {text}", cut(name).escape_debug()),
        None => text,
    }
}

/// Text in quotes, with every character that is not plainly printable escaped.
fn quoted(text: &str) -> String {
    format!("\"{}\"", cut(text).escape_debug())
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(MAX_SHOWN_CHARS).map_or(text, |(at, _)| text.get(..at).unwrap_or(text))
}

/// Data as text if it is that, in hexadecimal if it is short, and otherwise by its length.
fn shown(data: &[u8]) -> String {
    match text(data) {
        Some(text) => text,
        None if data.len() <= MAX_SHOWN_BYTES => hex_string(data),
        None => format!("{} bytes", data.len()),
    }
}

/// Text that may end in a zero byte; control characters alone are no text.
fn text(data: &[u8]) -> Option<String> {
    let data = data.strip_suffix(&[0]).unwrap_or(data);
    let readable = |text: &&str| !text.contains('\0') && text.chars().any(|c| !c.is_control());
    let text = core::str::from_utf8(data).ok().filter(readable)?;
    Some(quoted(text))
}

/// UTF-16 text, up to its first zero.
pub(super) fn utf16(data: &[u8]) -> String {
    let (units, _) = data.as_chunks::<2>();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0);
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// A GUID as it is printed: the first three groups are little-endian.
pub(super) fn guid(bytes: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *bytes;
    let group = |bytes: &[u8]| hex_string(bytes);
    let (fourth, fifth) = rest.split_at(2);
    format!(
        "{}-{}-{}-{}-{}",
        group(&[d, c, b, a]),
        group(&[f, e]),
        group(&[h, g]),
        group(fourth),
        group(fifth)
    )
}

/// UEFI_VARIABLE_DATA: vendor GUID, lengths of name (in characters) and data, name, data.
fn variable_parts(data: &[u8]) -> Option<(&[u8; 16], &[u8], &[u8])> {
    let (vendor, rest) = data.split_first_chunk::<16>()?;
    let (name_len, rest) = u64_at(rest)?;
    let (data_len, rest) = u64_at(rest)?;
    let (name, value) = rest.split_at_checked(name_len.checked_mul(2)?)?;
    (value.len() == data_len).then_some((vendor, name, value))
}

/// The data of a variable without its name.
pub(super) fn variable_value(data: &[u8]) -> Option<&[u8]> {
    variable_parts(data).map(|(_, _, value)| value)
}

fn variable(data: &[u8]) -> Option<String> {
    let (vendor, name, value) = variable_parts(data)?;
    let name = utf16(name);
    let value = match name.as_str() {
        "BootOrder" => boot_order(value),
        _ if is_boot_option(&name) => boot_option(value),
        _ => None,
    }
    .unwrap_or_else(|| shown(value));
    Some(format!("variable {} of {} = {value}", quoted(&name), guid(vendor)))
}

fn is_boot_option(name: &str) -> bool {
    name.strip_prefix("Boot")
        .is_some_and(|number| number.len() == 4 && number.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn boot_order(value: &[u8]) -> Option<String> {
    let (numbers, rest) = value.as_chunks::<2>();
    let numbers: Vec<String> =
        numbers.iter().map(|n| format!("Boot{:04X}", u16::from_le_bytes(*n))).collect();
    (rest.is_empty() && numbers.len() <= MAX_SHOWN_BYTES).then(|| numbers.join(", "))
}

/// EFI_LOAD_OPTION: attributes, length of the device path, description, device path.
fn boot_option(value: &[u8]) -> Option<String> {
    let (_attributes, rest) = value.split_first_chunk::<4>()?;
    let (path_len, rest) = rest.split_first_chunk::<2>()?;
    let description = utf16(rest);
    let path = rest.get(description.encode_utf16().count().checked_add(1)?.checked_mul(2)?..)?;
    let path = path.get(..usize::from(u16::from_le_bytes(*path_len)))?;
    Some(format!("{} {}", quoted(&description), device_path::describe(path)))
}

/// UEFI_IMAGE_LOAD_EVENT: address, length, link address, length of the device path, device path.
fn image(data: &[u8]) -> Option<String> {
    let (_address, rest) = u64_at(data)?;
    let (len, rest) = u64_at(rest)?;
    let (_link_address, rest) = u64_at(rest)?;
    let (path_len, rest) = u64_at(rest)?;
    let path = rest.get(..path_len)?;
    Some(format!("image of {len} bytes from {}", device_path::describe(path)))
}

/// UEFI_PLATFORM_FIRMWARE_BLOB2: counted text, base, length.
fn blob(data: &[u8]) -> Option<String> {
    let (text, rest) = counted_text(data)?;
    let (base, rest) = u64_at(rest)?;
    let (len, _) = u64_at(rest)?;
    Some(format!("{} at {base:#x}, {len:#x} bytes", quoted(text)))
}

fn counted_text(data: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = data.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*len))?;
    let text = core::str::from_utf8(text).ok()?;
    Some((text.trim_end_matches('\0'), rest))
}

/// UEFI_GPT_DATA: header of 92 bytes with the GUID of the disk, count, and entries of 128 bytes with their names.
fn gpt(data: &[u8]) -> Option<String> {
    let disk = guid(data.get(56..)?.first_chunk()?);
    let (count, entries) = u64_at(data.get(92..)?)?;
    let (entries, _) = entries.as_chunks::<128>();
    let names = entries.iter().take(count).map(|entry| quoted(&utf16(&entry[56..])));
    Some(format!("disk {disk}, {count} partitions: {}", names.collect::<Vec<_>>().join(", ")))
}

/// TCG_PCClientTaggedEvent: id, length, data.
fn tagged(data: &[u8]) -> Option<String> {
    let (id, rest) = data.split_first_chunk::<4>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let value = rest.get(..len)?;
    Some(format!("tag {:#x} {}", u32::from_le_bytes(*id), shown(value)))
}

fn u64_at(data: &[u8]) -> Option<(usize, &[u8])> {
    let (value, rest) = data.split_first_chunk::<8>()?;
    Some((usize::try_from(u64::from_le_bytes(*value)).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GUID: [u8; 16] =
        [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];

    fn wide(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    fn variable_data(name: &str, value: &[u8]) -> Vec<u8> {
        let lens = [name.len() as u64, value.len() as u64].map(u64::to_le_bytes).concat();
        [&GUID[..], &lens, &wide(name), value].concat()
    }

    #[test]
    fn variables() {
        let show = |name, value: &[u8]| describe(EV_EFI_VARIABLE_BOOT, &variable_data(name, value), None);
        assert_eq!(
            show("SecureBoot", &[1]),
            r#"variable "SecureBoot" of 8be4df61-93ca-11d2-aa0d-00e098032b8c = 01"#
        );
        assert!(show("BootOrder", &[1, 0, 0x0a, 0]).ends_with("= Boot0001, Boot000A"));
        let mut file = vec![4, 4, 14, 0];
        file.extend(wide("\\a.b\0"));
        file.extend([0x7f, 0xff, 4, 0]);
        let option = [&[1, 0, 0, 0][..], &[18, 0], &wide("Linux\0"), &file].concat();
        assert!(show("Boot0001", &option).ends_with(r#"= "Linux" \a.b"#), "{}", show("Boot0001", &option));
    }

    #[test]
    fn what_cannot_be_read_is_shown_by_its_length() {
        assert_eq!(describe(EV_EFI_VARIABLE_BOOT, &[0xff; 40], None), "40 bytes");
        assert_eq!(describe(EV_EFI_GPT_EVENT, &[0xfe; 3], None), "fefefe");
        assert_eq!(describe(0xd, b"/boot/grub.cfg\0", None), "\"/boot/grub.cfg\"");
        assert_eq!(describe(EV_SEPARATOR, &[0; 4], None), "separator 00000000");
        assert_eq!(describe(EV_EVENT_TAG, b"\x02\0\0\0\x03\0\0\0abc", None), "tag 0x2 \"abc\"");
        assert_eq!(describe(RUNTIME_EVENT, &[0xff, 1], Some("app-id")), "app-id = ff01");
        assert_eq!(describe(0xd, &[b'a'; 1000], None).len(), MAX_SHOWN_CHARS + 2);
    }

    proptest! {
        #[test]
        fn any_data_has_a_printable_description(
            event_type in prop::sample::select(vec![
                1, 4, 6, 0xa, 0xd, 0x8000_0001, 0x8000_0003, 0x8000_0006, 0x8000_000a, 0x8000_000b, RUNTIME_EVENT,
            ]),
            data in prop::collection::vec(any::<u8>(), 0..300),
            small in any::<bool>(),
        ) {
            // Small bytes make lengths that are met now and then.
            let data: Vec<u8> = if small { data.iter().map(|byte| byte % 3).collect() } else { data };
            let text = describe(event_type, &data, Some("na\u{7}me"));
            prop_assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
        }
    }
}
