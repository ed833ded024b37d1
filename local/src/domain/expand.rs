//! `$(NAME)` in a manifest's command, arguments and variables, as the kubelet reads it.
//!
//! A name that is not known stays as it is, and `$$(NAME)` means `$(NAME)` itself.
//!
//! Source: Kubernetes API reference, `Container.command` and `EnvVar.value`.

use std::collections::BTreeMap;

/// Replaces every `$(NAME)` in `text` that `value_of` knows.
fn expand(text: &str, value_of: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(escaped) = after.strip_prefix('$') {
            expanded.push('$');
            rest = escaped;
        } else if let Some((name, following)) =
            after.strip_prefix('(').and_then(|opened| opened.split_once(')'))
        {
            let value = value_of(name).unwrap_or_else(|| format!("$({name})"));
            expanded.push_str(&value);
            rest = following;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

/// What a container's command and variables come to on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expanded {
    /// The command with its arguments.
    pub(crate) words: Vec<String>,
    /// The variables, `PORT` among them.
    pub(crate) variables: BTreeMap<String, String>,
}

/// Expands `words` and `variables` (in their order: each may refer to those before it). `PORT` is `port`, whatever
/// the manifest says, because several processes of a worker share this machine.
pub(crate) fn expand_all(words: &[String], variables: &[(String, String)], port: u16) -> Expanded {
    let mut known = BTreeMap::from([("PORT".to_owned(), port.to_string())]);
    for (name, value) in variables.iter().filter(|(name, _)| name != "PORT") {
        let value = expand(value, |name| known.get(name).cloned());
        known.insert(name.clone(), value);
    }
    let words = words
        .iter()
        .map(|word| expand(word, |name| known.get(name).cloned()))
        .collect();
    Expanded {
        words,
        variables: known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kubelet_reads_it() {
        let known = |name: &str| (name == "PORT").then(|| "8080".to_owned());
        // Rows after k8s.io/kubernetes/third_party/forked/golang/expansion.
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(PORT)", "8080"),
            ("--port=$(PORT)/x$(PORT)", "--port=8080/x8080"),
            ("$$(PORT)", "$(PORT)"),
            ("$$$(PORT)", "$8080"),
            ("$(NOBODY)", "$(NOBODY)"),
            ("$PORT", "$PORT"),
            ("$(PORT", "$(PORT"),
            ("cost: 5$", "cost: 5$"),
            ("$()", "$()"),
            ("sh -c 'echo $$'", "sh -c 'echo $'"),
        ] {
            assert_eq!(expand(text, known), expected, "{text}");
        }
    }

    #[test]
    fn variables_refer_to_those_before_them_and_to_our_port() {
        let text = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let variables = [
            ("URL", "http://$(HOST):$(PORT)"),
            ("HOST", "a"),
            ("PORT", "80"),
            ("LATER", "$(HOST)b"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expanded = expand_all(
            &text(&["serve", "$(PORT)", "$(LATER)", "$(URL)"]),
            &variables,
            20_001,
        );
        assert_eq!(
            expanded.words,
            text(&["serve", "20001", "ab", "http://$(HOST):20001"])
        );
        assert_eq!(expanded.variables["PORT"], "20001");
        assert_eq!(expanded.variables["LATER"], "ab");
        assert_eq!(expanded.variables.len(), 4);
    }
}
