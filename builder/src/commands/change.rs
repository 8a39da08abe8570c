//! Dockerfile instructions that `import` and `commit` apply to a configuration.

use hull_image::RunConfig;
use serde_json::json;

use crate::host;

/// The time that images get: `SOURCE_DATE_EPOCH`, else now.
///
/// # Errors
/// That is no number of seconds since 1970, or tells a time that no image can have.
pub(crate) fn epoch() -> Result<i64, String> {
    let given = std::env::var("SOURCE_DATE_EPOCH").unwrap_or_default();
    let text = given.trim();
    if text.is_empty() {
        return Ok(host::now());
    }
    let seconds = text.parse().ok().filter(|seconds| (0..=host::LAST_MOMENT).contains(seconds));
    seconds
        .ok_or_else(|| format!("SOURCE_DATE_EPOCH is no number of seconds up to the year 9999: \"{text}\""))
}

/// Applies `CMD ENTRYPOINT ENV EXPOSE LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR`.
///
/// # Errors
/// Any other instruction, or one without what it needs.
pub(crate) fn apply(config: &mut RunConfig, instruction: &str) -> Result<(), String> {
    let (word, rest) = instruction.trim().split_once(char::is_whitespace).unwrap_or((instruction.trim(), ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(format!("change {instruction:?} says nothing"));
    }
    match word.to_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => pairs(rest)?.into_iter().for_each(|(key, value)| set_env(config, &key, &value)),
        "LABEL" => config.labels.extend(pairs(rest)?),
        "EXPOSE" => {
            let port = |text: &str| if text.contains('/') { text.to_owned() } else { format!("{text}/tcp") };
            config.exposed_ports.extend(rest.split_whitespace().map(|text| (port(text), json!({}))));
        }
        "VOLUME" => config.volumes.extend(list(rest).into_iter().map(|path| (path, json!({})))),
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" if rest.starts_with('/') => rest.clone_into(&mut config.working_dir),
        "WORKDIR" => config.working_dir = format!("{}/{rest}", config.working_dir.trim_end_matches('/')),
        _ => return Err(format!("change {word} is not an instruction that can be applied")),
    }
    Ok(())
}

/// Sets a variable in its old place, or at the end.
pub(crate) fn set_env(config: &mut RunConfig, key: &str, value: &str) {
    let entry = format!("{key}={value}");
    let prefix = format!("{key}=");
    match config.env.iter_mut().find(|old| old.starts_with(&prefix)) {
        Some(old) => *old = entry,
        None => config.env.push(entry),
    }
}

/// JSON, else the shell's.
fn command(text: &str) -> Vec<String> {
    serde_json::from_str(text)
        .unwrap_or_else(|_| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

fn list(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| text.split_whitespace().map(str::to_owned).collect())
}

/// `KEY=VALUE ...` with quotes, or the old form `KEY VALUE`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    if !words.first().is_some_and(|word| word.contains('=')) {
        let (key, value) =
            text.split_once(char::is_whitespace).ok_or_else(|| format!("{text:?} has no value"))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word:?} has no value"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect()
}

fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', _) => word.get_or_insert_default().extend(letters.next()),
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    match quote {
        Some(_) => Err(format!("{text:?} has an unclosed quote")),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_configuration() {
        let mut config = RunConfig { env: vec!["A=0".into(), "B=1".into()], ..RunConfig::default() };
        for line in [
            r#"CMD ["a", "b"]"#,
            "entrypoint run me",
            r#"ENV A="x y" C=\ z"#,
            "ENV D old form",
            "LABEL k=v l='w x'",
            "EXPOSE 80 53/udp",
            r#"VOLUME ["/d"]"#,
            "WORKDIR /w",
            "WORKDIR sub",
            "USER u:g",
            "STOPSIGNAL 9",
            "ONBUILD RUN x",
        ] {
            apply(&mut config, line).unwrap();
        }
        assert_eq!(config.cmd.unwrap(), ["a", "b"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "run me"]);
        assert_eq!(config.env, ["A=x y", "B=1", "C= z", "D=old form"]);
        assert_eq!(config.labels["l"], "w x");
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/w/sub", "u:g"));
        assert!(config.volumes.contains_key("/d"));
        for bad in ["RUN x", "CMD", "ENV A", "ENV A='x", ""] {
            assert!(apply(&mut RunConfig::default(), bad).is_err(), "{bad}");
        }
    }
}
