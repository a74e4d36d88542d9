interface ImportMetaEnv {
  /** Where Wasel is, such as `http://localhost:3001`. */
  readonly VITE_WASEL_URL: string;
  /** Its `SUPABASE_ANON_KEY`. */
  readonly VITE_WASEL_ANON_KEY: string;
}
