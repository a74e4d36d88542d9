import { useEffect, useState } from 'react';

import type { Session } from '@supabase/supabase-js';
import type { WaselClient } from '@wasel/react';

import { SignIn } from './SignIn';
import { WhatsAppSettings } from './WhatsAppSettings';

/** The settings for whoever is signed in, else the form to do so. */
export function App({ client }: { client: WaselClient }) {
  const [session, setSession] = useState<Session | null | undefined>(undefined);
  useEffect(() => {
    const { data } = client.auth.onAuthStateChange((_event, now) => setSession(now));
    return () => data.subscription.unsubscribe();
  }, [client]);

  if (session === undefined) return null;
  if (session === null) return <SignIn client={client} />;
  return (
    <main>
      <header>
        <span dir="ltr">{session.user.email}</span>
        <button type="button" className="link" onClick={() => void client.auth.signOut({ scope: 'local' })}>
          تسجيل الخروج
        </button>
      </header>
      <WhatsAppSettings />
    </main>
  );
}
