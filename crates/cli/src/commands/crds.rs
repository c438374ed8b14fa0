//! `vmferry crds`.

use std::path::Path;

use vmferry_api::crd::{self, Crd};

use crate::args::Crds;
use crate::exit::{Code, Failure};
use crate::output;

/// Prints the CRDs, or writes them to a folder.
pub fn crds(args: &Crds) -> Result<Code, Failure> {
    for crd in crd::all() {
        let text = crd
            .to_yaml()
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", crd.file)))?;
        match &args.write {
            Some(folder) => write(folder, crd, &text)?,
            None => output::line(&format!("---\n{}", text.trim_end())),
        }
    }
    Ok(Code::Success)
}

fn write(folder: &Path, crd: &Crd, text: &str) -> Result<(), Failure> {
    let path = folder.join(crd.file);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}
