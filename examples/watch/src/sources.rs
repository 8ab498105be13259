//! The sources that the command line names.

use std::io;
use std::sync::Arc;

use virevent::EventSource;
use virevent_testkit::{Script, scripted_with};

use crate::Failure;
use crate::args::{Args, ScriptFile};

/// The sources. A script plays in place of the demo, or beside the URIs.
pub(crate) fn sources(args: &Args) -> Result<Vec<Arc<dyn EventSource>>, Failure> {
    let mut script = args.script.as_ref().map(read_script).transpose()?;
    let mut sources: Vec<Arc<dyn EventSource>> = Vec::new();
    for uri in &args.uris {
        sources.push(match script.take_if(|_| uri == "fake:") {
            Some(script) => Arc::new(scripted_with(script, &args.settings)),
            None => virevent_backends::open_with(uri, args.settings.clone())
                .map_err(|e| Failure(2, e.to_line()))?,
        });
    }
    if script.is_some() || sources.is_empty() {
        let script = script.unwrap_or_else(Script::demo);
        sources.push(Arc::new(scripted_with(script, &args.settings)));
    }
    Ok(sources)
}

fn read_script(file: &ScriptFile) -> Result<Script, Failure> {
    let (name, text) = match file {
        ScriptFile::StandardInput => ("standard input".into(), io::read_to_string(io::stdin())),
        ScriptFile::Path(path) => (path.display().to_string(), std::fs::read_to_string(path)),
    };
    let text =
        text.map_err(|error| Failure(2, format!("cannot read the script {name}: {error}")))?;
    Script::from_toml(&text).map_err(|error| Failure(2, format!("{name}: {error}")))
}
