//! The build's time: everything new is dated so.

use crate::commands::build::Arguments;
use crate::dockerfile::ast::Dockerfile;
use crate::error::{Error, Result};
use crate::{graph, host};

use super::options;

/// When nobody says: 1980, the first that every archive format can write.
const DEFAULT: u64 = 315_532_800;

/// The same arguments with the build's time in them, whoever says it: the flag, SOURCE_DATE_EPOCH as argument, in the
/// environment, or as an ARG before the first FROM. `context` is when that was made, where it tells: what the word
/// `context` stands for.
///
/// # Errors
/// What is said is no time, or one after the year 9999, or the ARG cannot be expanded.
pub(super) fn settle(arguments: &Arguments, file: &Dockerfile, context: Option<u64>) -> Result<Arguments> {
    let epoch = match arguments.source_date_epoch {
        Some(given) => given,
        None => read(&said(arguments, file)?.unwrap_or_default(), context)?,
    };
    bounded(epoch).map(|epoch| Arguments { source_date_epoch: Some(epoch), ..arguments.clone() })
}

fn bounded(epoch: u64) -> Result<u64> {
    match epoch <= host::LAST_MOMENT.cast_unsigned() {
        true => Ok(epoch),
        false => Err(Error::fact(format!("the build's time is after the year 9999: {epoch} seconds"))),
    }
}

/// Seconds since 1970, of arguments that are settled.
pub(super) fn epoch(arguments: &Arguments) -> u64 {
    arguments.source_date_epoch.unwrap_or(DEFAULT)
}

/// Who calls comes before who wrote the Dockerfile, also with an empty text.
fn said(arguments: &Arguments, file: &Dockerfile) -> Result<Option<String>> {
    let argument = options::build_args(arguments)?.remove(graph::EPOCH);
    match argument.or_else(|| std::env::var(graph::EPOCH).ok()) {
        None => Ok(graph::own_epoch(file, &options::graph(arguments, DEFAULT)?)?),
        given => Ok(given),
    }
}

fn read(text: &str, context: Option<u64>) -> Result<u64> {
    match text.trim() {
        "" => Ok(DEFAULT),
        "context" => Ok(context.unwrap_or(DEFAULT)),
        number => number.parse().map_err(|_| {
            Error::fact(format!(
                "SOURCE_DATE_EPOCH is neither a number of seconds nor \"context\": \"{number}\""
            ))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_or_that_of_the_context() {
        for (text, context, wanted) in [
            ("", Some(7), Some(DEFAULT)),
            (" 5 ", Some(7), Some(5)),
            ("context", Some(7), Some(7)),
            ("context", None, Some(DEFAULT)),
            ("-1", None, None),
            ("a-stage", Some(7), None),
        ] {
            assert_eq!(read(text, context).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn no_time_is_later_than_an_image_can_tell() {
        let last = host::LAST_MOMENT.cast_unsigned();
        assert_eq!(
            (bounded(last).ok(), bounded(last + 1).ok(), bounded(u64::MAX).ok()),
            (Some(last), None, None)
        );
    }
}
