//! The built-in identity: users, sign-ins, refresh tokens. Not tenant data.
