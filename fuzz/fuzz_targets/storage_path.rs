//! Names of files, and folders of lists.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasel_domain::storage_path::{MAX_LENGTH, ObjectName, parse_folder};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(name) = ObjectName::parse(text) {
        assert_eq!(name.as_str(), text, "nothing is put right");
        assert!(text.len() <= MAX_LENGTH && !text.contains(['\0', '%', '\\']));
        assert!(text.split('/').all(|part| !matches!(part, "" | "." | "..")));
        if let Some(org) = name.public_org() {
            assert!(text.starts_with(&format!("{org}/public/")));
        }
    }
    if let Ok(folder) = parse_folder(text) {
        assert!(folder.is_empty() || (folder.ends_with('/') && ObjectName::parse(folder.trim_end_matches('/')).is_ok()));
    }
});
