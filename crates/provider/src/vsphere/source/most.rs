//! How many bytes a disk's stream can have.
//!
//! Whoever stages it cuts parts by that, and a number that is too small ends the transfer. So it is only taken from the disk's files
//! where it matters: for disks that would need large parts otherwise.

use crate::vsphere::client::Client;
use crate::vsphere::soap::{Element, Moref};

/// Up to here, parts are small whatever the disk holds.
const SMALL: u64 = 128 << 30;

/// The most bytes of the stream of a disk of a VM, where `default` is what its capacity makes of it.
pub(super) async fn most(client: &Client, vm: &Moref, key: i64, default: u64) -> u64 {
    if default <= SMALL {
        return default;
    }
    let layout = match client.properties(vm, &["layoutEx"]).await {
        Ok(props) => props.get("layoutEx").and_then(|layout| allocated(layout, key)),
        Err(trouble) => {
            tracing::debug!(%vm, detail = trouble.detail, "the sizes of the disks' files are not known");
            None
        }
    };
    layout.map_or(default, |bytes| bound(bytes, default))
}

/// The files' size, and an eighth for what the server has not counted yet, and for what cannot be packed.
fn bound(allocated: u64, default: u64) -> u64 {
    allocated.saturating_add(allocated / 8).max(SMALL).min(default)
}

/// Bytes of a disk's files over its whole chain. `None` where a link of it has no size, as on storage that has no files.
fn allocated(layout: &Element, key: i64) -> Option<u64> {
    let disk = layout.all("disk").find(|disk| disk.number_at("key") == Some(key))?;
    let mut sum = 0_u64;
    for link in disk.all("chain") {
        let mut extents = 0_u64;
        for file in link.all("fileKey") {
            let key: i64 = file.text().trim().parse().ok()?;
            let file = layout.all("file").find(|file| file.number_at("key") == Some(key))?;
            let size = u64::try_from(file.number_at("size")?).ok()?;
            sum = sum.checked_add(size)?;
            if file.text_at("type") == Some("diskExtent") {
                extents = extents.checked_add(size)?;
            }
        }
        if extents == 0 {
            return None;
        }
    }
    (sum > 0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// A layout with a disk of two links, whose second has an extent of so many bytes.
    fn layout(extent: &str) -> Element {
        let file = |key: u8, kind: &str, size: &str| {
            format!(
                "<file><key>{key}</key><name>[ds] web/{key}.vmdk</name><type>{kind}</type><size>{size}</size></file>"
            )
        };
        let files = [
            file(0, "config", "3000"),
            file(4, "diskDescriptor", "500"),
            file(5, "diskExtent", &(200 * GIB).to_string()),
            file(6, "diskDescriptor", "500"),
            file(7, "diskExtent", extent),
        ];
        let text = format!(
            "<val>{}<disk><key>2001</key><chain><fileKey>0</fileKey></chain></disk><disk><key>2000</key><chain><fileKey>4</fileKey>\
             <fileKey>5</fileKey></chain><chain><fileKey>6</fileKey><fileKey>7</fileKey></chain></disk></val>",
            files.concat()
        );
        Element::parse(&text).unwrap()
    }

    #[test]
    fn a_disk_takes_what_the_files_of_its_chain_take() {
        let found = allocated(&layout(&(8 * GIB).to_string()), 2000);
        assert_eq!(found, Some(208 * GIB + 1000));
    }

    #[test]
    fn sizes_that_are_not_there_are_not_guessed() {
        for extent in ["0", "", "-1", "9223372036854775808"] {
            assert_eq!(allocated(&layout(extent), 2000), None, "{extent:?}");
        }
        // A chain without an extent, and a disk that is not in the layout.
        assert_eq!(allocated(&layout("1"), 2001), None);
        assert_eq!(allocated(&layout("1"), 2002), None);
    }

    #[test]
    fn a_thin_disk_is_bounded_by_its_data_and_no_disk_by_more_than_its_capacity() {
        let default = 1040 * GIB;
        assert_eq!(bound(50 * GIB, default), SMALL);
        assert_eq!(bound(400 * GIB, default), 450 * GIB);
        assert_eq!(bound(1024 * GIB, default), default);
        assert_eq!(bound(u64::MAX, default), default);
    }
}
