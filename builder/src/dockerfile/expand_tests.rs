use super::*;

const VARIABLES: [(&str, &str); 12] = [
    ("A", "apple"),
    ("EMPTY", ""),
    ("PATH_", "/usr/local/bin"),
    ("FILE", "archive.tar.gz"),
    ("SPACED", "one two"),
    ("x_1", "under"),
    ("STAR", "a*b"),
    ("é", "accent"),
    ("REP", "aXbXc"),
    ("Q", "it's"),
    ("B", "b"),
    ("1", "never set by a Dockerfile"),
];

fn lookup(name: &str) -> Option<String> {
    VARIABLES.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn words_expand_as_documented() {
    let rows = [
        ("plain", "plain"),
        ("$A", "apple"),
        ("${A}", "apple"),
        ("x$A.y", "xapple.y"),
        ("${A}pie", "applepie"),
        ("$Apie", ""),
        ("$x_1-", "under-"),
        ("$é", "accent"),
        ("\\$A", "$A"),
        ("'$A'", "$A"),
        ("\"$A\"", "apple"),
        ("\"\\$A\"", "$A"),
        ("\"a\\\\b\"", "a\\b"),
        ("\"a\\qb\"", "a\\qb"),
        ("a\\ b", "a b"),
        ("'a\\b'", "a\\b"),
        ("a\\", "a"),
        ("$", "$"),
        ("a$", "a$"),
        ("$.", "$."),
        ("$UNSET", ""),
        ("${UNSET:-d}", "d"),
        ("${UNSET-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${A:-d}", "apple"),
        ("${UNSET:+d}", ""),
        ("${EMPTY:+d}", ""),
        ("${EMPTY+d}", "d"),
        ("${A:+d}", "d"),
        ("${A+d}", "d"),
        ("${A:?no}", "apple"),
        ("${EMPTY?no}", ""),
        ("${UNSET:-$A}", "apple"),
        ("${UNSET:-${EMPTY:-$B}}", "b"),
        ("${UNSET:-'a}b'}", "a}b"),
        ("${UNSET:-\"$A\"}", "apple"),
        ("${PATH_#*/}", "usr/local/bin"),
        ("${PATH_##*/}", "bin"),
        ("${FILE%.*}", "archive.tar"),
        ("${FILE%%.*}", "archive"),
        ("${FILE%.zip}", "archive.tar.gz"),
        ("${FILE#arch}", "ive.tar.gz"),
        ("${A#?}", "pple"),
        ("${A%?}", "appl"),
        ("${STAR#a\\*}", "b"),
        ("${STAR#*}", "a*b"),
        ("${STAR##*}", ""),
        ("${REP/X/-}", "a-bXc"),
        ("${REP//X/-}", "a-b-c"),
        ("${REP//X/}", "abc"),
        ("${REP/X*/!}", "a!"),
        ("${REP/nope/!}", "aXbXc"),
        ("${PATH_//\\//_}", "_usr_local_bin"),
        ("${A/$A/$B}", "b"),
        ("${UNSET#x}", ""),
        ("$1a", "never set by a Dockerfilea"),
        ("$@", ""),
        ("a'b'\"c\"d", "abcd"),
        ("''", ""),
        ("$SPACED", "one two"),
    ];
    for (word, wanted) in rows {
        assert_eq!(Lexer::new('\\').expand(word, &lookup).map(|e| e.text).as_deref(), Ok(wanted), "{word}");
    }
}

#[test]
fn broken_words_are_refused() {
    let rows = [
        ("'open", "unexpected end of statement while looking for matching single-quote"),
        ("\"open", "unexpected end of statement while looking for matching double-quote"),
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${:-a}", "syntax error: bad substitution"),
        ("${{", "syntax error: bad substitution"),
        ("${A", "syntax error: missing '}'"),
        ("${A:", "syntax error: missing '}'"),
        ("${A:-b", "syntax error: missing '}'"),
        ("${A/b", "syntax error: missing '}'"),
        ("${A:=b}", "unsupported modifier (:=) in substitution"),
        ("${A:#b}", "unsupported modifier (:#) in substitution"),
        ("${A!b}", "unsupported modifier (!) in substitution"),
        ("${UNSET?}", "UNSET: is not allowed to be unset"),
        ("${EMPTY:?must be set}", "EMPTY: must be set"),
    ];
    for (word, wanted) in rows {
        assert_eq!(Lexer::new('\\').expand(word, &lookup).err().as_deref(), Some(wanted), "{word}");
    }
    let deep = "${A:+".repeat(200) + &"}".repeat(200);
    assert!(Lexer::new('\\').expand(&deep, &lookup).is_err());
}

#[test]
fn unquoted_values_split_into_words_and_quoted_ones_do_not() {
    let rows: [(&str, &[&str]); 6] = [
        ("$SPACED", &["one", "two"]),
        ("\"$SPACED\"", &["one two"]),
        ("a b", &["a", "b"]),
        ("a\\ b", &["a b"]),
        ("'' x", &["", "x"]),
        ("$EMPTY", &[]),
    ];
    for (word, wanted) in rows {
        assert_eq!(Lexer::new('\\').expand(word, &lookup).unwrap().words, wanted, "{word}");
    }
}

#[test]
fn the_escape_directive_moves_the_escape() {
    let backtick = Lexer::new('`');
    assert_eq!(backtick.expand("`$A c:\\x", &lookup).unwrap().text, "$A c:\\x");
}

#[test]
fn plain_lookups_that_fail_are_noted() {
    let found = Lexer::new('\\').expand("$NO1 ${NO2} ${NO3:-x}", &lookup).unwrap();
    assert_eq!(found.undefined, ["NO1", "NO2"]);
}
