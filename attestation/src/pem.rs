//! Certificate chains in PEM (RFC 7468), as quotes and the vendors' services carry them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Leaf, intermediate and root, with room for a longer chain to be refused by name.
const MAX_CERTIFICATES: usize = 8;

/// The certificates of a chain as DER, in order; none if the bytes are not such a chain. NUL bytes may end it, since
/// quoting libraries count the end of their C string.
#[must_use]
pub fn certificates(pem: &[u8]) -> Option<Vec<Vec<u8>>> {
    let text = core::str::from_utf8(pem).ok()?.trim_end_matches('\0');
    let mut found = Vec::new();
    let mut rest = text.trim_ascii();
    while !rest.is_empty() {
        if found.len() == MAX_CERTIFICATES {
            return None;
        }
        let (body, after) = rest.strip_prefix(BEGIN)?.split_once(END)?;
        let lines: String = body.split_ascii_whitespace().collect();
        found.push(STANDARD.decode(lines).ok()?);
        rest = after.trim_ascii_start();
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(der: &[u8]) -> String {
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der))
    }

    #[test]
    fn chains_with_and_without_a_final_nul() {
        let chain = pem(&[1; 60]) + &pem(&[2; 61]);
        let want = Some(vec![vec![1; 60], vec![2; 61]]);
        assert_eq!(certificates(chain.as_bytes()), want);
        assert_eq!(certificates(format!("{chain}\0").as_bytes()), want);
    }

    #[test]
    fn what_is_no_chain_is_refused() {
        for text in ["", "\0", "x", BEGIN, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"] {
            assert_eq!(certificates(text.as_bytes()), None, "{text:?}");
        }
        let one = pem(&[1; 60]);
        assert_eq!(certificates(format!("{one}x{one}").as_bytes()), None);
        assert_eq!(certificates(format!("{one}\0{one}").as_bytes()), None);
        assert_eq!(certificates(one.repeat(MAX_CERTIFICATES + 1).as_bytes()), None);
    }
}
