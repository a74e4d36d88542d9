import { createContext, useContext, useEffect, useMemo, useState } from 'react';
import type { ReactNode } from 'react';

import { apiOf, baseUrlOf } from './client.js';
import type { Api, WaselClient } from './client.js';
import { WaselError } from './errors.js';
import { IdentityStore } from './identity.js';
import type { Identity, Who } from './identity.js';
import { useStore } from './store.js';

export interface WaselProviderProps {
  /** `createClient(WASEL_URL, ANON_KEY)`. */
  client: WaselClient;
  /** Where Wasel is, if the client speaks to a Supabase project beside it. */
  baseUrl?: string;
  /** For clients with supabase-js' own option `accessToken`: the same function. */
  accessToken?: () => Promise<string | null>;
  /** For the same clients: who is signed in, `null` for nobody. Otherwise `client.auth` tells. */
  identity?: Identity | null;
  children?: ReactNode;
}

type Settings = Omit<WaselProviderProps, 'children'>;

const Context = createContext<Settings | null>(null);

/** Gives the hooks below it their client. */
export function WaselProvider({ children, ...settings }: WaselProviderProps) {
  return <Context.Provider value={settings}>{children}</Context.Provider>;
}

/** What every hook can be given instead of a provider. */
export interface ClientOption {
  client?: WaselClient | undefined;
}

/** A client with the person who uses it. Another person, or another tenant, is another connection. */
export interface Connection {
  client: WaselClient;
  api: Api;
  who: Who;
}

const identities = new WeakMap<WaselClient, IdentityStore>();
const UNASKED = new IdentityStore(null);

function identityOf(client: WaselClient): IdentityStore {
  const known = identities.get(client);
  if (known) return known;
  const store = new IdentityStore(client);
  identities.set(client, store);
  return store;
}

export function useConnection(option?: WaselClient): Connection {
  const settings = useContext(Context);
  const client = option ?? settings?.client;
  if (!client) throw new Error('no client: wrap this in <WaselProvider client={…}> or give the hook `client`');
  const own = client === settings?.client ? settings : null;
  const given = own?.identity;
  const isGiven = given !== undefined;
  const { who: asked } = useStore(isGiven ? UNASKED : identityOf(client));
  const [userId, orgId, name] = [given?.userId, given?.orgId ?? null, given?.name ?? null];
  const who = useMemo<Who>(() => {
    if (!isGiven) return asked;
    return userId === undefined ? { status: 'signed_out' } : { status: 'signed_in', userId, orgId, name };
  }, [isGiven, asked, userId, orgId, name]);

  // The newest function is used, but a new one is not a new connection.
  const [latest] = useState<{ token: (() => Promise<string | null>) | undefined }>({ token: own?.accessToken });
  useEffect(() => {
    latest.token = own?.accessToken;
  });
  const baseUrl = own?.baseUrl;
  return useMemo(() => {
    const token = async () => {
      if (latest.token) return latest.token();
      const { data, error } = await client.auth.getSession();
      if (error) throw new WaselError(error.message, { code: error.code ?? 'unauthenticated', status: 401, cause: error });
      return data.session?.access_token ?? null;
    };
    const org = who.status === 'signed_in' ? who.orgId : null;
    return { client, who, api: apiOf(() => baseUrl ?? baseUrlOf(client), token, org) };
  }, [client, who, baseUrl, latest]);
}
