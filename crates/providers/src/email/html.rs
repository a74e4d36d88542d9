//! HTML as plain text, for the text part of our mails and for what lists and searches show of theirs.

use mail_parser::decoders::html::html_to_text;

/// Tags that end a line, beside `br` and `/p`, which the converter knows.
const LINE_ENDS: [&str; 12] = [
    "</div",
    "</li",
    "</tr",
    "</h1",
    "</h2",
    "</h3",
    "</h4",
    "</h5",
    "</h6",
    "</table",
    "</ul",
    "</blockquote",
];

/// The words of an HTML text, one line per block, at most one empty line between.
pub(super) fn to_text(html: &str) -> String {
    let text = html_to_text(&with_line_ends(html));
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim) {
        if !line.is_empty() || lines.last().is_some_and(|last| !last.is_empty()) {
            lines.push(line);
        }
    }
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines.join("\n")
}

/// With a `<br>` after every block.
fn with_line_ends(html: &str) -> String {
    let mut result = String::with_capacity(html.len() + html.len() / 8);
    let mut rest = html;
    while let Some(start) = rest.find("</") {
        let (before, tag) = rest.split_at(start);
        result.push_str(before);
        let ends_line = LINE_ENDS.iter().any(|end| {
            let name = tag.as_bytes().get(..end.len());
            let next = tag.as_bytes().get(end.len());
            name.is_some_and(|name| name.eq_ignore_ascii_case(end.as_bytes()))
                && next.is_some_and(|next| !next.is_ascii_alphanumeric())
        });
        if ends_line {
            result.push_str("<br>");
        }
        result.push_str("</");
        rest = &tag[2..];
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::to_text;

    #[test]
    fn blocks_become_lines_and_what_is_not_shown_is_left_out() {
        let html = "<html><head><title>T</title><style>p{color:red}</style></head><body>\
            <!-- no --><div>مرحبا&nbsp;سارة</div><div>Two &amp; <b>three</b><br>four</div>\
            <script>alert(1)</script><ul><li>a</li><li>b</li></ul></body></html>";
        assert_eq!(to_text(html), "مرحبا\u{a0}سارة\nTwo & three\nfour\na\nb");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_converted(html in "(<|>|/|&|;|!|-| |\n|a|br|p|div|ك|style|script|head|&#[0-9]{1,9};|\\PC){0,40}") {
            to_text(&html);
        }
    }
}
