//! Settings, as annotations, as environment variables and as flags. An input is lines of `stem=value`, or of whole
//! names.

use crate::Target;
use crate::input::{pairs, text};
use contract::settings::{
    Annotations, Environment, Flags, Naming, Problems, SETTINGS, Settings, Source, parse, unknown,
};

pub(crate) const TARGET: Target = Target {
    name: "settings",
    what: "settings by annotation, variable and flag: read back the same, or refused under the name that was written",
    run,
};

/// A sentence shows at most 80 characters of a value, each escaped, besides its fixed words.
const SENTENCE_BYTES: usize = 80 * 10 + 512;

fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let pairs = pairs(text);
    for naming in Naming::ALL {
        let named: Vec<(String, String)> = pairs
            .iter()
            .map(|(name, value)| match contract::settings::find(name) {
                // Flags are given without their dashes.
                Some(_) if *naming == Naming::Flag => (name.clone(), value.clone()),
                Some(setting) => (naming.write(setting.name), value.clone()),
                None => (name.clone(), value.clone()),
            })
            .collect();
        check_unknown(*naming, &named);
        match read(*naming, &named) {
            Ok(settings) => {
                let again = read(*naming, &written(*naming, &settings));
                assert_eq!(again.as_ref(), Ok(&settings), "by {naming:?}");
            }
            Err(problems) => check_problems(*naming, &named, &problems),
        }
    }
}

fn read(naming: Naming, named: &[(String, String)]) -> Result<Settings, Problems> {
    let named = named.iter().cloned();
    let source: Box<dyn Source> = match naming {
        Naming::Annotation => Box::new(Annotations::new(named)),
        Naming::Env => Box::new(Environment::new(named)),
        Naming::Flag => Box::new(Flags::new(named)),
    };
    parse(source.as_ref())
}

/// What is in force, as somebody would write it, with the password.
fn written(naming: Naming, settings: &Settings) -> Vec<(String, String)> {
    settings
        .effective()
        .into_iter()
        .map(|(setting, value)| {
            let name = match naming {
                Naming::Flag => setting.name.to_owned(),
                naming => naming.write(setting.name),
            };
            let is_broker = setting.name == contract::settings::BROKER.name;
            (
                name,
                if is_broker {
                    settings.broker.reveal()
                } else {
                    value
                },
            )
        })
        .collect()
}

fn check_problems(naming: Naming, named: &[(String, String)], problems: &Problems) {
    assert!(!problems.0.is_empty());
    for problem in &problems.0 {
        let setting = SETTINGS
            .iter()
            .find(|setting| naming.write(setting.name) == problem.name);
        let setting = setting.unwrap_or_else(|| panic!("{} is no setting", problem.name));
        let as_written = match naming {
            Naming::Flag => setting.name,
            Naming::Annotation | Naming::Env => &problem.name,
        };
        assert!(
            named.iter().any(|(name, _)| name == as_written),
            "{problem} was not written"
        );
        check_sentence(&problem.to_string(), &problem.name);
    }
}

/// One line, bounded, about this name.
pub(super) fn check_sentence(sentence: &str, name: &str) {
    assert!(sentence.starts_with(name), "{sentence}");
    assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
    assert!(
        sentence.len() <= SENTENCE_BYTES,
        "{} bytes: {sentence}",
        sentence.len()
    );
}

fn check_unknown(naming: Naming, named: &[(String, String)]) {
    let names = || named.iter().map(|(name, _)| name.as_str());
    for unknown in unknown(naming, names(), &[]) {
        assert!(naming.has_prefix(&unknown.name) && names().any(|name| name == unknown.name));
        assert!(!unknown.to_string().chars().any(char::is_control), "{unknown}");
        if let Some(suggestion) = &unknown.suggestion {
            assert!(
                SETTINGS
                    .iter()
                    .any(|setting| naming.write(setting.name) == *suggestion)
            );
        }
    }
}
