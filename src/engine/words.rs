//! Numbers as people read them in a sentence. Pure, and the same in what the engine tells and in what the command line does.

use commonhold_proto::Seq;

/// Bytes with a binary unit and at most one decimal: `4.2 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    // In tenths, rounded, so that 1,048,575 bytes are 1.0 MiB and not 1024.0 KiB.
    let mut tenths = (u128::from(bytes) * 10 + 512) / 1024;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    if tenths >= 1_000 {
        return format!("{} {}", (tenths + 5) / 10, UNITS[unit]);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A number with commas between the thousands: `12,345`.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 record`, `2 records`.
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(n), if n == 1 { one } else { many })
}

/// `sequence number 7`, or `sequence numbers 7 to 9`.
pub(super) fn span_of(first: Seq, last: Seq) -> String {
    if first == last { format!("sequence number {first}") } else { format!("sequence numbers {first} to {last}") }
}
