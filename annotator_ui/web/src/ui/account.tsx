import { useQuery, useQueryClient } from "@tanstack/react-query";
import { createContext, useContext } from "react";

import { ApiClient, ApiError } from "../api/client";
import type { SignedIn, User } from "../api/types";

export const api = new ApiClient();

/** The query key of the signed-in person. */
export const ME = ["me"];

/** Who is signed in: undefined while unknown, null for nobody. */
export function useMe(): { user: User | null | undefined; error: Error | null } {
  const query = useQuery({
    queryKey: ME,
    queryFn: async () => {
      try {
        return (await api.me()).user;
      } catch (error) {
        if (error instanceof ApiError && error.status === 401) return null;
        throw error;
      }
    },
    staleTime: Infinity,
  });
  return { user: query.data, error: query.error };
}

/** Take note of a fresh sign-in, or of a sign-out (null). */
export function useSetMe(): (signedIn: SignedIn | null) => void {
  const queries = useQueryClient();
  return (signedIn) => {
    // What one person saw is not for the next one at this screen.
    if (signedIn === null) queries.removeQueries({ predicate: ({ queryKey }) => queryKey[0] !== ME[0] });
    queries.setQueryData(ME, signedIn?.user ?? null);
  };
}

const UserContext = createContext<User | null>(null);
export const UserProvider = UserContext.Provider;

/** The signed-in person; only pages behind the sign-in use it. */
export function useUser(): User {
  const user = useContext(UserContext);
  if (!user) throw new Error("useUser needs a signed-in person.");
  return user;
}
