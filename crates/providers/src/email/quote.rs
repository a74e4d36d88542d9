//! Cutting off what a reply quotes below itself, so that a conversation does not repeat itself. Conservative: what is
//! not surely a quotation to the very end stays, and nothing is cut that would leave nothing.

/// Lines that begin the quoted mail in programs that do not mark quoted lines, lower-case, without their dashes.
const SEPARATORS: [&str; 4] = [
    "original message",
    "original appointment",
    "الرسالة الأصلية",
    "رسالة أصلية",
];

/// Ends of the line that says who wrote what follows, lower-case, without the colon.
const WROTE: [&str; 3] = ["wrote", "a écrit", "schrieb"];
const WROTE_ARABIC: [&str; 2] = ["كتب", "تمت كتابة"];

/// How that line begins, lower-case, where it may be folded into several.
const ON: [&str; 6] = ["on ", "le ", "am ", "في ", "بتاريخ ", "كتب "];

/// The first headers of a mail quoted by Outlook, lower-case.
const FROM: [&str; 2] = ["from:", "من:"];
const SENT: [&str; 5] = ["sent:", "date:", "تم الإرسال:", "تاريخ الإرسال:", "التاريخ:"];

/// Where HTML of the large mail programs begins its quotation.
const HTML_MARKS: [&str; 5] = [
    "<div class=\"gmail_quote",
    "<blockquote type=\"cite\"",
    "<div id=\"appendonsend\"",
    "<div id=\"divrplyfwdmsg\"",
    "<div id=\"mail-editor-reference-message-container\"",
];

/// The reply's own part of a plain text, or `None` where there is nothing to cut.
pub(super) fn own_text(text: &str) -> Option<&str> {
    let lines: Vec<(usize, &str)> = offsets(text);
    let words: Vec<&str> = lines.iter().map(|(_, line)| bare(line)).collect();
    // Where the lines begin that are quoted or empty to the very end.
    let last_own = words
        .iter()
        .rposition(|line| !line.is_empty() && !line.starts_with('>'));
    let tail = last_own.map_or(0, |at| at + 1);
    let last_quoted = words.iter().rposition(|line| line.starts_with('>'));
    // Whether the lines from here on are all quoted, and at least one is.
    let is_quoted = |at: usize| at >= tail && last_quoted.is_some_and(|last| last >= at);
    let first = (0..words.len()).find(|at| begins_quotation(&words, *at, &is_quoted))?;
    let own = text[..lines[first].0].trim_end();
    (!own.trim().is_empty()).then_some(own)
}

/// The part of an HTML text before its quotation, or `None` where none is marked.
pub(super) fn own_html(html: &str) -> Option<&str> {
    // Case changes no lengths here: only ASCII letters are changed.
    let lower = html.to_ascii_lowercase();
    let start = HTML_MARKS
        .iter()
        .filter_map(|mark| lower.find(mark))
        .min()?;
    Some(&html[..start])
}

fn offsets(text: &str) -> Vec<(usize, &str)> {
    let mut start = 0;
    let mut lines = Vec::new();
    for line in text.split_inclusive('\n') {
        lines.push((start, line));
        start += line.len();
    }
    lines
}

/// A line without the spaces and direction marks around it.
fn bare(line: &str) -> &str {
    line.trim_matches(|c: char| {
        c.is_whitespace()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

/// Whether everything from this line on is a quotation with the line that announces it.
fn begins_quotation(lines: &[&str], at: usize, is_quoted: &dyn Fn(usize) -> bool) -> bool {
    let line = lines[at];
    if line.is_empty() {
        return false;
    }
    if line.starts_with('>') {
        return is_quoted(at);
    }
    if is_separator(line) || is_outlook_header(&lines[at..]) {
        return true;
    }
    // "On … wrote:", in up to three lines.
    let ends = (at + 1..=lines.len().min(at + 3)).find(|end| is_announcement(&lines[at..*end]));
    ends.is_some_and(is_quoted)
}

fn is_separator(line: &str) -> bool {
    let words = line.trim_matches(['-', '_', ' ']);
    line.starts_with("--") && SEPARATORS.contains(&words.to_lowercase().as_str())
}

fn is_outlook_header(lines: &[&str]) -> bool {
    // With or without the rule above it.
    let lines = match lines {
        [rule, rest @ ..] if rule.len() >= 10 && rule.bytes().all(|byte| byte == b'_') => rest,
        lines => lines,
    };
    let begins = |line: Option<&&str>, names: &[&str]| {
        line.is_some_and(|line| {
            let line = line.trim_matches('*').to_lowercase();
            names
                .iter()
                .any(|name| line.replace('*', "").starts_with(name))
        })
    };
    begins(lines.first(), &FROM) && begins(lines.get(1), &SENT)
}

fn is_announcement(lines: &[&str]) -> bool {
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else {
        return false;
    };
    let begins = |line: &str| {
        let line = line.to_lowercase();
        ON.iter().any(|on| line.starts_with(on))
    };
    // Folded, or the customer's last words above it?
    if lines.len() > 1 && (!begins(first) || lines[1..].iter().any(|line| begins(line))) {
        return false;
    }
    let Some(end) = last.strip_suffix(':').or_else(|| last.strip_suffix("：")) else {
        return false;
    };
    let whole = lines.join(" ").to_lowercase();
    let is_long = whole.chars().count() > 400 || lines.iter().any(|line| line.is_empty());
    let end = end.trim_end().to_lowercase();
    !is_long
        && !first.starts_with('>')
        && (WROTE.iter().any(|word| end.ends_with(word))
            || WROTE_ARABIC.iter().any(|word| whole.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::{own_html, own_text};

    #[test]
    fn the_trail_below_a_reply_is_cut() {
        for (whole, own) in [
            (
                "Yes\n\nOn Mon, 2 Nov 2026 at 10:00, Shop <s@x.y> wrote:\n\n> Blue?\n>\n> Shop\n",
                "Yes",
            ),
            (
                "Yes\r\n\r\nOn Mon, 2 Nov 2026 at 10:00, Shop\r\n<s@x.y> wrote:\r\n> Blue?\r\n",
                "Yes",
            ),
            (
                "نعم\n\n\u{202b}في الاثنين، 2 نوفمبر 2026 تمت كتابة ما يلي بواسطة متجر <s@x.y>:\u{202c}\n\n> أزرق؟\n",
                "نعم",
            ),
            ("نعم\nكتب متجر:\n> أزرق؟", "نعم"),
            (
                "Blue\nOn a boat\nOn Mon, 2 Nov Shop wrote:\n> Where?",
                "Blue\nOn a boat",
            ),
            ("Yes\nBye\nShop wrote:\n> Blue?", "Yes\nBye"),
            (
                "Yes\n\n-----Original Message-----\nFrom: Shop\nBlue?",
                "Yes",
            ),
            (
                "Yes\n\n________________________________\nFrom: Shop <s@x.y>\nSent: Monday\nTo: C\n\nBlue?",
                "Yes",
            ),
            ("نعم\n\nمن: متجر\nتم الإرسال: الاثنين\n\nأزرق؟", "نعم"),
            ("*Yes*\n\n*From:* Shop\n*Sent:* Monday\nBlue?", "*Yes*"),
            ("Yes\n> Blue?", "Yes"),
        ] {
            assert_eq!(own_text(whole), Some(own), "{whole}");
        }
    }

    #[test]
    fn what_may_be_the_customers_own_words_stays() {
        for whole in [
            "Yes",
            "",
            "> only a quotation",
            "On Monday he wrote:\nI will come",
            "On Mon Shop wrote:\n> Blue?\nYes, blue\n> Large?\nNo",
            "She wrote:\n\n> a poem\n\nNice, is it not?",
            "From: here\nTo: there",
            "-- \nSara",
            "----\nThe original message was lost",
        ] {
            assert_eq!(own_text(whole), None, "{whole}");
        }
    }

    #[test]
    fn html_is_cut_where_its_program_marked_it() {
        let html = "<DIV>Yes</DIV><Div Class=\"gmail_quote gmail_quote_container\">On …</div>";
        assert_eq!(own_html(html), Some("<DIV>Yes</DIV>"));
        assert_eq!(own_html("<blockquote>a poem</blockquote>"), None);
    }
}
