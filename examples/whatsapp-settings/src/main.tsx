import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

import { createClient } from '@supabase/supabase-js';
import { WaselProvider } from '@wasel/react';
import type { Database } from '@wasel/react';

import { App } from './App';
import './styles.css';

const { VITE_WASEL_URL: url, VITE_WASEL_ANON_KEY: key } = import.meta.env;
const supabase = createClient<Database>(url, key);

const root = document.getElementById('root');
if (!root) throw new Error('index.html has no #root');
createRoot(root).render(
  <StrictMode>
    <WaselProvider client={supabase}>
      <App client={supabase} />
    </WaselProvider>
  </StrictMode>,
);
