//! One thread against many, byte for byte, on every pair there is.

use std::ffi::OsStr;

use hpbuild_fixtures::pairs;

use crate::program::{Workspace, hpbuild};

#[test]
fn threads_change_no_byte() {
    let files = Workspace::new();
    let pairs = pairs().expect("fixtures");
    assert!(!pairs.is_empty());
    let mut patches = 0;
    for pair in &pairs {
        let (base, fixed): (&OsStr, &OsStr) = (pair.base.dll.as_ref(), pair.fixed.dll.as_ref());
        let diff = |jobs: &str, format: &str| {
            let options = ["--jobs", jobs, "--format", format].map(OsStr::new);
            let run = hpbuild([&[OsStr::new("diff"), base, fixed], &options[..]].concat());
            (run.code, run.stdout, run.stderr)
        };
        for format in ["text", "json"] {
            let one = diff("1", format);
            assert_eq!(one, diff("4", format), "{} {:?}", pair.name, pair.machine);
            assert!(matches!(one.0, Some(0 | 1 | 3)), "{}: {one:?}", pair.name);
            assert_eq!(one.2, "", "{}", pair.name);
        }
        let patch = files.path("patch.dll");
        let build = |jobs: &str| {
            let output = [
                OsStr::new("-o"),
                patch.as_ref(),
                "--jobs".as_ref(),
                jobs.as_ref(),
            ];
            let run = hpbuild([&[OsStr::new("build"), base, fixed], &output[..]].concat());
            let bytes = std::fs::read(&patch).ok();
            // A file if and only if the patch was built.
            assert_eq!(
                bytes.is_some(),
                run.code == Some(0),
                "{}: {run:#?}",
                pair.name
            );
            if bytes.is_some() {
                std::fs::remove_file(&patch).expect("the patch can be removed");
            }
            (run.code, run.stdout, run.stderr, bytes)
        };
        let one = build("1");
        assert_eq!(one, build("4"), "{} {:?}", pair.name, pair.machine);
        assert!(
            matches!(one.0, Some(0 | 1 | 3)),
            "{}: {:?}",
            pair.name,
            one.2
        );
        patches += usize::from(one.3.is_some());
    }
    assert!(patches > 0);
}
