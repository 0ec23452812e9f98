//! Ways to link one set of objects.

use std::path::PathBuf;

/// One way.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// Its name, which a folder can have.
    pub(crate) name: &'static str,
    /// Flags of the linker.
    pub(crate) flags: Vec<String>,
    /// Whether the objects come in reverse order.
    pub(crate) reversed: bool,
}

/// An image, and where the linker says that it put everything.
pub(crate) struct Linked {
    /// The image.
    pub(crate) image: PathBuf,
    /// The map file.
    pub(crate) map: PathBuf,
}

impl Way {
    fn new(name: &'static str, link: &[String], without: &[&str], with: &[&str]) -> Way {
        let kept = link.iter().filter(|it| !without.contains(&it.as_str()));
        let flags = kept.cloned().chain(with.iter().map(|it| (*it).to_owned()));
        Way {
            name,
            flags: flags.collect(),
            reversed: false,
        }
    }

    /// With no other flags than `link`, those of the recipe.
    pub(crate) fn plain(link: &[String]) -> Way {
        Way::new("plain", link, &[], &[])
    }

    /// With identical code folded.
    pub(crate) fn folded(link: &[String]) -> Way {
        Way::new("folded", link, &["/opt:ref,noicf"], &["/opt:ref,icf"])
    }

    /// Every way in which the meaning of the image stays as it is.
    pub(crate) fn all(link: &[String]) -> Vec<Way> {
        let padding = "/functionpadmin:16";
        vec![
            Way::plain(link),
            Way {
                name: "order",
                reversed: true,
                ..Way::plain(link)
            },
            Way::new("image-base", link, &[], &["/base:0x270000000"]),
            Way::new("padding", link, &[padding], &["/functionpadmin:64"]),
            Way::new("no-padding", link, &[padding, "/hotpatchcompatible"], &[]),
            Way::new("time", link, &["/brepro"], &["/timestamp:1700000000"]),
            Way::folded(link),
        ]
    }
}
