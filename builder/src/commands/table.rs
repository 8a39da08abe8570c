//! Tables for people, and the choice between a table, a template and JSON.

use serde_json::Value;

use super::template::Template;

/// Pads columns to their widest cell, three blanks apart; the last column is not padded.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (index, cell) in cells.enumerate() {
            let pad = if index + 1 == header.len() { 0 } else { widths[index] + 3 - cell.chars().count() };
            text.push_str(cell);
            text.push_str(&" ".repeat(pad));
        }
        text.push('\n');
        text
    };
    let mut text = line(&mut header.iter().copied());
    rows.iter().for_each(|row| text.push_str(&line(&mut row.iter().map(String::as_str))));
    text
}

/// Shows rows, each a JSON object, by `--format`: `json`, `table TEMPLATE`, or a template for each row.
///
/// # Errors
/// A template that cannot be read or asks for a field that is not there.
pub(crate) fn formatted(format: &str, rows: &[Value]) -> Result<String, String> {
    if format == "json" {
        return Ok(rows.iter().map(|row| format!("{row}\n")).collect());
    }
    let (is_table, text) = match format.strip_prefix("table ") {
        Some(text) => (true, text),
        None => (false, format),
    };
    let template = Template::parse(&text.replace("\\t", "\t").replace("\\n", "\n"))?;
    let lines: Vec<String> = rows.iter().map(|row| template.render(row)).collect::<Result<_, _>>()?;
    if !is_table {
        return Ok(lines.iter().map(|line| format!("{line}\n")).collect());
    }
    let header: Vec<String> = template.fields().iter().map(|field| heading(field)).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> =
        lines.iter().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    Ok(table(&header, &rows))
}

/// `CreatedSince` becomes `CREATED SINCE`.
fn heading(field: &str) -> String {
    let mut text = String::new();
    let mut before_lower = false;
    for letter in field.chars() {
        if letter.is_uppercase() && before_lower {
            text.push(' ');
        }
        before_lower = letter.is_lowercase();
        text.extend(letter.to_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["a".to_owned(), "long".to_owned()], vec!["bcd".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["N", "V"], &rows), "N     V\na     long\nbcd   x\n");
    }

    #[test]
    fn formats_choose_json_template_or_table() {
        let rows = [json!({"ID": "1", "CreatedSince": "now"})];
        assert_eq!(formatted("json", &rows).unwrap(), "{\"CreatedSince\":\"now\",\"ID\":\"1\"}\n");
        assert_eq!(formatted("{{.ID}}-{{.CreatedSince}}", &rows).unwrap(), "1-now\n");
        assert_eq!(
            formatted("table {{.ID}}\\t{{.CreatedSince}}", &rows).unwrap(),
            "ID   CREATED SINCE\n1    now\n"
        );
        assert!(formatted("{{.Nope}}", &rows).is_err());
    }
}
