//! `vmferry explain`.

use vmferry_engine::phase;

use crate::args::{Explain, Topic};
use crate::exit::Code;
use crate::output;

/// Explains.
pub fn explain(args: &Explain) -> Code {
    let Topic::Phases = args.topic;
    let text = if args.markdown {
        phase::markdown()
    } else {
        phase::text()
    };
    output::line(text.trim_end());
    Code::Success
}
