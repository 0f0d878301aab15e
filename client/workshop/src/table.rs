//! A CSV in memory: a header, numeric features with missing values, and one column of labels.

use std::path::Path;

use crate::WorkshopError;

/// Most rows and cells taken: 256 million cells are a GiB.
const MAX_CELLS: usize = 1 << 28;

/// A table of features and labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Names of the features, in order.
    pub features: Vec<String>,
    /// `[rows, features]` row-major; NaN is a missing value.
    pub values: Vec<f32>,
    /// Label of each row, as written; empty if the table has no label column.
    pub labels: Vec<String>,
    /// What the split column says of each row; empty if there is none.
    pub splits: Vec<String>,
}

/// Which columns are no features.
#[derive(Debug, Clone, Default)]
pub struct Columns<'a> {
    /// The label, or `None` for a table without.
    pub label: Option<&'a str>,
    /// The split; used if the column exists.
    pub split: Option<&'a str>,
    /// Columns to leave out.
    pub ignore: &'a [String],
    /// Take exactly these features, in this order.
    pub features: &'a [String],
}

impl Table {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.values.len() / self.features.len().max(1)
    }

    /// Reads a CSV with a header row. Empty cells, `NA` and `NaN` are missing values.
    ///
    /// # Errors
    /// [`WorkshopError`]: unreadable, a column that does not exist, a cell that is not a number, no rows.
    pub fn read(path: &Path, columns: &Columns<'_>) -> Result<Self, WorkshopError> {
        let csv_error = |error: csv::Error| match error.kind() {
            csv::ErrorKind::Io(source) => WorkshopError::Read {
                path: path.to_owned(),
                source: std::io::Error::new(source.kind(), source.to_string()),
            },
            _ => WorkshopError::Csv { path: path.to_owned(), message: error.to_string() },
        };
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(csv_error)?;
        let header = reader.headers().map_err(csv_error)?.clone();
        let find = |name: &str| {
            header.iter().position(|column| column == name).ok_or_else(|| WorkshopError::NoColumn {
                path: path.to_owned(),
                column: name.to_owned(),
                known: header.iter().take(12).collect::<Vec<_>>().join(", "),
            })
        };
        let label = columns.label.map(find).transpose()?;
        let split = columns.split.and_then(|name| find(name).ok());
        let ignored = columns.ignore.iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>()?;
        let taken: Vec<usize> = if columns.features.is_empty() {
            (0..header.len())
                .filter(|at| Some(*at) != label && Some(*at) != split && !ignored.contains(at))
                .collect()
        } else {
            columns.features.iter().map(|name| find(name)).collect::<Result<_, _>>()?
        };
        if taken.is_empty() {
            return Err(WorkshopError::Data(format!("{} has no feature columns", path.display())));
        }
        let names = taken.iter().filter_map(|at| header.get(*at)).map(str::to_owned).collect();
        let mut table = Self { features: names, values: Vec::new(), labels: Vec::new(), splits: Vec::new() };
        for record in reader.records() {
            let record = record.map_err(csv_error)?;
            if table.values.len() + taken.len() > MAX_CELLS {
                return Err(WorkshopError::Data(format!(
                    "{} has more than {MAX_CELLS} cells",
                    path.display()
                )));
            }
            for (at, name) in taken.iter().zip(&table.features) {
                let text = record.get(*at).unwrap_or_default();
                let value = number(text).ok_or_else(|| WorkshopError::Cell {
                    path: path.to_owned(),
                    line: record.position().map_or(0, csv::Position::line),
                    column: name.clone(),
                    text: text.to_owned(),
                })?;
                table.values.push(value);
            }
            table.labels.extend(label.and_then(|at| record.get(at)).map(str::to_owned));
            table.splits.extend(split.and_then(|at| record.get(at)).map(str::to_owned));
        }
        if table.values.is_empty() {
            return Err(WorkshopError::Data(format!("{} has no rows", path.display())));
        }
        Ok(table)
    }

    /// The rows whose split is `name`; all of them if the table has no split column.
    #[must_use]
    pub fn only(&self, name: &str) -> Self {
        if self.splits.is_empty() {
            return self.clone();
        }
        self.select(&(0..self.rows()).filter(|row| self.splits[*row] == name).collect::<Vec<_>>())
    }

    /// These rows, in this order.
    #[must_use]
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        let width = self.features.len();
        Self {
            features: self.features.clone(),
            values: rows
                .iter()
                .flat_map(|row| &self.values[row * width..(row + 1) * width])
                .copied()
                .collect(),
            labels: rows.iter().filter_map(|row| self.labels.get(*row)).cloned().collect(),
            splits: rows.iter().filter_map(|row| self.splits.get(*row)).cloned().collect(),
        }
    }
}

/// A finite number, or NaN for a missing value.
fn number(text: &str) -> Option<f32> {
    if text.is_empty() || text.eq_ignore_ascii_case("na") || text.eq_ignore_ascii_case("nan") {
        return Some(f32::NAN);
    }
    text.parse::<f32>().ok().filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, columns: &Columns<'_>) -> Result<Table, WorkshopError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.csv");
        std::fs::write(&path, text).unwrap();
        Table::read(&path, columns)
    }

    #[test]
    fn missing_values_labels_and_splits_are_told_apart() {
        let columns = Columns { label: Some("y"), split: Some("split"), ..Columns::default() };
        let table = read("split,a,y,b\ntrain,1, cat,\ntest,NA,dog,2.5\n", &columns).unwrap();
        assert_eq!(table.features, ["a", "b"]);
        assert_eq!(table.labels, ["cat", "dog"]);
        assert!(table.values[1].is_nan() && table.values[2].is_nan());
        assert_eq!((table.values[0], table.values[3]), (1.0, 2.5));
        assert_eq!(table.only("test").labels, ["dog"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let columns = Columns { label: Some("y"), ..Columns::default() };
        let error = read("a,y\n1,0\nx,1\n", &columns).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("\"a\"") && error.contains("\"x\""), "{error}");
        assert!(read("a,b\n1,0\n", &columns).unwrap_err().to_string().contains("no column \"y\""));
        assert!(read("a,y\n1\n", &columns).is_err(), "a short row");
        assert!(read("a,y\ninf,1\n", &columns).is_err());
        assert!(read("a,y\n", &columns).unwrap_err().to_string().contains("no rows"));
        assert!(matches!(Table::read(Path::new("nowhere.csv"), &columns), Err(WorkshopError::Read { .. })));
    }
}
