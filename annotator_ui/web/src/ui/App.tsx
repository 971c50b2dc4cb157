import { QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { type ReactElement, useEffect } from "react";

import { ApiError } from "../api/client";
import { DatasetsPage } from "./DatasetsPage";
import { LabelPage } from "./LabelPage";
import { ProgressPage } from "./ProgressPage";
import { SignInPage } from "./SignInPage";
import { ME, UserProvider, useMe } from "./account";
import { Notice } from "./parts";
import { type Route, useRoute } from "./router";

const queries: QueryClient = new QueryClient({
  // A session that has run out shows the sign-in form wherever it is noticed.
  queryCache: new QueryCache({
    onError: (error) => {
      if (error instanceof ApiError && error.status === 401) queries.setQueryData(ME, null);
    },
  }),
  defaultOptions: {
    queries: {
      // What the server refused it refuses again; only silence is worth another try.
      retry: (n, error) => n < 2 && !(error instanceof ApiError && !error.isTransient),
      refetchOnWindowFocus: true,
    },
  },
});

export function App(): ReactElement {
  return (
    <QueryClientProvider client={queries}>
      <Pages />
    </QueryClientProvider>
  );
}

function titleOf(route: Route): string {
  if (route.page === "label") return `${route.dataset} – Maskloop`;
  if (route.page === "progress") return `${route.dataset}: progress – Maskloop`;
  return "Maskloop";
}

function Pages(): ReactElement {
  const route = useRoute();
  const { user, error } = useMe();
  useEffect(() => {
    document.title = titleOf(route);
  }, [route]);
  if (route.page === "sign-in") return <SignInPage />;
  if (error) return <Notice title="The server does not answer">{error.message}</Notice>;
  if (user === undefined) return <Notice title="One moment">Loading Maskloop…</Notice>;
  if (user === null) return <SignInPage />;
  return (
    <UserProvider value={user}>
      {route.page === "datasets" && <DatasetsPage />}
      {route.page === "label" && <LabelPage key={route.dataset} dataset={route.dataset} />}
      {route.page === "progress" && <ProgressPage key={route.dataset} dataset={route.dataset} />}
    </UserProvider>
  );
}
