//! `vmferry image check`.

use super::args::Look;
use super::convert::content;
use super::open;
use super::place::Place;
use crate::exit::{Code, Failure};
use crate::output::{line, units};

/// Reads the tables and every byte of data. What cannot be read is the finding.
pub async fn check(args: &Look) -> Result<Code, Failure> {
    let place = Place::parse(&args.source)?;
    let opened = open::open(&place, &args.input).await?;
    let map = opened.image.map().await.map_err(Failure::failed)?;
    let digest = content(&opened.image, opened.image.capacity(), "checking").await?;
    if args.shown.as_json() {
        let value = serde_json::json!({
            "name": opened.name,
            "format": opened.format.as_str(),
            "damaged": false,
            "dataBytes": map.data_bytes(),
            "contentDigest": digest,
        });
        line(&value.to_string());
    } else {
        line(&format!(
            "{}: no damage found in {} of data",
            opened.name,
            units::size(map.data_bytes())
        ));
        line(&format!("content digest  {digest}"));
    }
    Ok(Code::Success)
}
