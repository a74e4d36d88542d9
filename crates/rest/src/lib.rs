//! PostgREST's dialect: an HTTP request about a table becomes one SQL statement. Knows neither HTTP nor a connection.
