//! An OVA around one image: a tar with a description and the image, its length known beforehand.

use bytes::Bytes;

use crate::{Error, Kind};

const BLOCK: usize = 512;
/// What eleven octal digits cannot say any more.
const OCTAL: u64 = 8 << 30;

/// What stands before and behind the image.
#[derive(Debug, Clone)]
pub(super) struct Wrap {
    pub head: Bytes,
    pub tail: Bytes,
}

/// The wrap of an image of `len` bytes. Nobody reads the description: a disk is taken out of the archive by its name.
pub(super) fn wrap(image: &str, len: u64) -> Result<Wrap, Error> {
    let stem = image.rsplit_once('.').map_or(image, |(stem, _)| stem);
    let ovf = description(image, len);
    let mut head = header(&format!("{stem}.ovf"), ovf.len() as u64)?;
    head.extend_from_slice(ovf.as_bytes());
    pad(&mut head, ovf.len() as u64);
    head.extend_from_slice(&header(image, len)?);
    let mut tail = Vec::new();
    pad(&mut tail, len);
    // The end of the archive.
    tail.resize(tail.len() + 2 * BLOCK, 0);
    Ok(Wrap {
        head: head.into(),
        tail: tail.into(),
    })
}

fn description(image: &str, len: u64) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\">\n  <References>\n    <File ovf:id=\"file1\" \
         ovf:href=\"{image}\" ovf:size=\"{len}\"/>\n  </References>\n  <DiskSection>\n    <Info>Disks</Info>\n    \
         <Disk ovf:diskId=\"disk1\" ovf:fileRef=\"file1\"/>\n  </DiskSection>\n</Envelope>\n"
    )
}

/// A header of the ustar format. Sizes from 8 GiB on are written in binary, as GNU tar does and reads.
fn header(name: &str, len: u64) -> Result<Vec<u8>, Error> {
    if name.len() > 99 {
        return Err(Error::new(Kind::Bug, "wrap", format!("{name:?}")).detail("the name is too long for an archive"));
    }
    let mut block = vec![0_u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if len < OCTAL {
        put(124, format!("{len:011o}\0").as_bytes());
    } else {
        put(124, &[0x80]);
        put(128, &len.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

fn pad(bytes: &mut Vec<u8>, len: u64) {
    let block = BLOCK as u64;
    let missing = len.next_multiple_of(block) - len;
    bytes.resize(bytes.len() + usize::try_from(missing).unwrap_or(0), 0);
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_reads_it() {
        let content = vec![7_u8; 1000];
        let wrap = wrap("vmferry-0123456789ab-disk0.qcow2", 1000).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for part in [&wrap.head[..], &content, &wrap.tail] {
            file.write_all(part).unwrap();
        }
        assert_eq!(file.as_file().metadata().unwrap().len() % 512, 0);
        let list = Command::new("tar").arg("-tf").arg(file.path()).output().unwrap();
        let names = String::from_utf8(list.stdout).unwrap();
        assert_eq!(
            names,
            "vmferry-0123456789ab-disk0.ovf\nvmferry-0123456789ab-disk0.qcow2\n"
        );
        let mut tar = Command::new("tar");
        let image = tar
            .arg("-xOf")
            .arg(file.path())
            .arg("vmferry-0123456789ab-disk0.qcow2")
            .output()
            .unwrap();
        assert_eq!(image.stdout, content);
    }

    #[test]
    fn tar_reads_the_size_of_a_large_one() {
        let len = 20_u64 << 30;
        let wrap = wrap("big.raw", len).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&wrap.head).unwrap();
        // A hole in place of the image.
        let whole = wrap.head.len() as u64 + len + wrap.tail.len() as u64;
        file.as_file().set_len(whole).unwrap();
        let list = Command::new("tar").arg("-tvf").arg(file.path()).output().unwrap();
        assert!(String::from_utf8(list.stdout).unwrap().contains(&len.to_string()));
    }
}
