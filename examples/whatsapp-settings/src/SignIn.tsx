import { useState } from 'react';
import type { FormEvent } from 'react';

import type { WaselClient } from '@wasel/react';

export function SignIn({ client }: { client: WaselClient }) {
  const [error, setError] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);

  async function signIn(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setBusy(true);
    const { error } = await client.auth.signInWithPassword({
      email: String(form.get('email')),
      password: String(form.get('password')),
    });
    setBusy(false);
    if (error?.code === 'invalid_credentials') setError('البريد الإلكتروني أو كلمة المرور غير صحيحة.');
    else setError(error ? error.message : null);
  }

  return (
    <main>
      <form className="card" onSubmit={(event) => void signIn(event)}>
        <h1>تسجيل الدخول</h1>
        <label>
          البريد الإلكتروني
          <input name="email" type="email" dir="ltr" autoComplete="username" required />
        </label>
        <label>
          كلمة المرور
          <input name="password" type="password" dir="ltr" autoComplete="current-password" required />
        </label>
        {error && <p role="alert">{error}</p>}
        <button type="submit" disabled={isBusy}>
          دخول
        </button>
      </form>
    </main>
  );
}
