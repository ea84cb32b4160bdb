//! Numbers and digests as they stand in columns, and back.

use sqlx::Row;
use sqlx::any::AnyRow;

use crate::error::ClassError;

/// A number for a column: up to 2^63 - 1.
pub(crate) fn number(field: &'static str, value: u64) -> Result<i64, ClassError> {
    i64::try_from(value).map_err(|_| ClassError::Value { field, found: value, wanted: i64::MAX as u64 })
}

/// A row, and which table it is of.
pub(crate) struct Reader<'r> {
    pub(crate) table: &'static str,
    pub(crate) row: &'r AnyRow,
}

impl Reader<'_> {
    fn corrupt(&self, field: &'static str, found: impl ToString) -> ClassError {
        ClassError::Corrupt { table: self.table, field, found: found.to_string() }
    }

    pub(crate) fn number(&self, field: &'static str) -> Result<u64, ClassError> {
        self.number_or_none(field)?.ok_or_else(|| self.corrupt(field, "nothing"))
    }

    pub(crate) fn number_or_none(&self, field: &'static str) -> Result<Option<u64>, ClassError> {
        let value: Option<i64> = self.row.try_get(field).map_err(|error| self.corrupt(field, error))?;
        value.map(|value| u64::try_from(value).map_err(|_| self.corrupt(field, value))).transpose()
    }

    pub(crate) fn small<T: TryFrom<u64>>(&self, field: &'static str) -> Result<T, ClassError> {
        let value = self.number(field)?;
        T::try_from(value).map_err(|_| self.corrupt(field, value))
    }

    pub(crate) fn text(&self, field: &'static str) -> Result<String, ClassError> {
        self.row.try_get(field).map_err(|error| self.corrupt(field, error))
    }

    pub(crate) fn named<T>(&self, field: &'static str, of: impl Fn(&str) -> Option<T>) -> Result<T, ClassError> {
        let text = self.text(field)?;
        of(&text).ok_or_else(|| self.corrupt(field, format!("{text:?}")))
    }

    pub(crate) fn bytes_or_none(&self, field: &'static str) -> Result<Option<Vec<u8>>, ClassError> {
        self.row.try_get(field).map_err(|error| self.corrupt(field, error))
    }

    pub(crate) fn bytes(&self, field: &'static str) -> Result<Vec<u8>, ClassError> {
        self.bytes_or_none(field)?.ok_or_else(|| self.corrupt(field, "nothing"))
    }

    pub(crate) fn array<const N: usize>(&self, field: &'static str) -> Result<[u8; N], ClassError> {
        self.bytes(field)?.try_into().map_err(|bytes: Vec<u8>| self.corrupt(field, format!("{} bytes", bytes.len())))
    }

    pub(crate) fn array_or_none<const N: usize>(&self, field: &'static str) -> Result<Option<[u8; N]>, ClassError> {
        self.bytes_or_none(field)?.map(|_| self.array(field)).transpose()
    }
}
