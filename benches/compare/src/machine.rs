//! What the figures were taken on, by what, and when.

use std::fs;
use std::process::Command;

use crate::os::cores::processors;
use crate::rivals::program::interpreter;

/// In one line.
pub fn described() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let numpy = "import sys\nsys.stdout.write(sys.version.split()[0])\n\
                 for name in 'numpy', 'joblib':\n try: sys.stdout.write(f', {name} {__import__(name).__version__}')\n \
                 except ImportError: sys.stdout.write(f', no {name}')";
    let python = said(&interpreter(), &["-c", numpy]);
    format!(
        "{} x {}, Linux {}, {}, {}, {}",
        processors(),
        processor(),
        kernel.trim(),
        said("rustc", &["-V"]).unwrap_or("rustc unknown".to_owned()),
        python.map_or("no Python".to_owned(), |version| format!(
            "Python {version}"
        )),
        said("date", &["-u", "+%-d %B %Y"]).unwrap_or_default(),
    )
}

/// Its name, and family and model, since virtual machines often hide the name.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |key: &str| {
        let line = text
            .lines()
            .find(|line| line.split('\t').next() == Some(key));
        line.and_then(|line| Some(line.split_once(": ")?.1.to_owned()))
    };
    match (of("model name"), of("cpu family"), of("model")) {
        (Some(name), Some(family), Some(model)) => {
            format!("{name} (family {family}, model {model})")
        }
        (Some(name), ..) => name,
        _ => std::env::consts::ARCH.to_owned(),
    }
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
