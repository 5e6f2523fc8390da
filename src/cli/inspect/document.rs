//! What is printed: named lists of fields and named tables, for people or as JSON.
#![expect(clippy::print_stdout, reason = "the command line talks to its user")]

use clap::ValueEnum;
use serde_json::{Map, Value};
use std::fmt::Write;

/// For whom to print.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Form {
    /// For people.
    Table,
    /// One JSON object.
    Json,
}

/// One value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cell {
    /// Text; checksums and 128-bit numbers too, which JSON numbers cannot hold.
    Text(String),
    /// A number.
    Number(u64),
    /// Yes or no.
    Truth(bool),
}

impl From<u64> for Cell {
    fn from(value: u64) -> Self {
        Self::Number(value)
    }
}

impl From<u32> for Cell {
    fn from(value: u32) -> Self {
        Self::Number(value.into())
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Truth(value)
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Truth(true) => "yes".to_owned(),
            Self::Truth(false) => "no".to_owned(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
            Self::Truth(truth) => (*truth).into(),
        }
    }
}

#[derive(Clone, Debug)]
struct Table {
    name: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    /// A list of fields: the only row is printed downwards.
    fields: bool,
}

/// Everything that one command prints.
#[derive(Clone, Debug, Default)]
pub struct Document {
    tables: Vec<Table>,
}

impl Document {
    /// Adds a list of fields.
    pub fn fields(
        &mut self,
        name: &'static str,
        fields: impl IntoIterator<Item = (&'static str, Cell)>,
    ) {
        let (columns, row) = fields.into_iter().unzip();
        self.tables.push(Table {
            name,
            columns,
            rows: vec![row],
            fields: true,
        });
    }

    /// Adds a table.
    pub fn table(&mut self, name: &'static str, columns: &[&'static str], rows: Vec<Vec<Cell>>) {
        assert!(rows.iter().all(|row| row.len() == columns.len()));
        self.tables.push(Table {
            name,
            columns: columns.to_vec(),
            rows,
            fields: false,
        });
    }

    /// Prints it to stdout.
    ///
    /// # Errors
    /// Never.
    pub fn print(&self, form: Form) -> anyhow::Result<()> {
        match form {
            Form::Table => print!("{}", self.text()),
            Form::Json => println!("{:#}", self.json()),
        }
        Ok(())
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (index, table) in self.tables.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            writeln!(out, "{gap}{}:", table.name).expect("text grows as it has to");
            if table.fields {
                let width = table
                    .columns
                    .iter()
                    .map(|name| name.len())
                    .max()
                    .unwrap_or(0);
                for (name, cell) in table.columns.iter().zip(&table.rows[0]) {
                    writeln!(out, "  {name:width$}  {}", cell.text()).expect("text grows");
                }
            } else {
                write_table(&mut out, table);
            }
        }
        out
    }

    /// For programs: fields are an object, tables a list of objects.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut all = Map::new();
        for table in &self.tables {
            let objects = table.rows.iter().map(|row| {
                let fields = table.columns.iter().zip(row);
                let object: Map<String, Value> = fields
                    .map(|(name, cell)| ((*name).to_owned(), cell.json()))
                    .collect();
                Value::Object(object)
            });
            let value = if table.fields {
                objects.collect::<Vec<_>>().swap_remove(0)
            } else {
                Value::Array(objects.collect())
            };
            all.insert(table.name.to_owned(), value);
        }
        Value::Object(all)
    }
}

/// Columns as wide as their widest value; numbers to the right.
fn write_table(out: &mut String, table: &Table) {
    let rows: Vec<Vec<String>> = table
        .rows
        .iter()
        .map(|row| row.iter().map(Cell::text).collect())
        .collect();
    let widths: Vec<usize> = table
        .columns
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let widest = rows.iter().map(|row| row[index].len()).max().unwrap_or(0);
            widest.max(name.len())
        })
        .collect();
    let numeric = |index: usize| {
        table
            .rows
            .first()
            .is_some_and(|row| matches!(row[index], Cell::Number(_)))
    };
    let heads = table
        .columns
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    for row in std::iter::once(&heads).chain(&rows) {
        let mut line = String::new();
        for (index, text) in row.iter().enumerate() {
            let width = widths[index];
            let written = if numeric(index) {
                write!(line, "  {text:>width$}")
            } else {
                write!(line, "  {text:width$}")
            };
            written.expect("text grows as it has to");
        }
        writeln!(out, "{}", line.trim_end()).expect("text grows as it has to");
    }
}

#[cfg(test)]
mod tests {
    use super::Document;

    #[test]
    fn the_same_document_is_text_and_json() {
        let mut document = Document::default();
        document.fields("file", [("name", "x".into()), ("whole", true.into())]);
        let rows = vec![
            vec![7_u64.into(), "a".into()],
            vec![100_u64.into(), "bc".into()],
        ];
        document.table("slots", &["op", "kind"], rows);
        let text = "file:\n  name   x\n  whole  yes\n\nslots:\n   op  kind\n    7  a\n  100  bc\n";
        assert_eq!(document.text(), text);
        let json = document.json();
        assert_eq!(json["file"]["whole"], true);
        assert_eq!(json["slots"][1]["op"], 100);
        assert_eq!(json["slots"][1]["kind"], "bc");
    }
}
