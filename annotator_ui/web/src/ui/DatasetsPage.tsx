import { useQuery } from "@tanstack/react-query";
import type { ReactElement } from "react";

import type { Dataset } from "../api/types";
import { api, useSetMe, useUser } from "./account";
import { Icon } from "./icons";
import { PageHeader, formatNumber, sayStage } from "./parts";
import { Link } from "./router";

export function DatasetsPage(): ReactElement {
  const { data, error, isPending } = useQuery({ queryKey: ["datasets"], queryFn: () => api.datasets() });
  return (
    <div className="page">
      <PageHeader><SignOut /></PageHeader>
      <main>
        <h1>Datasets</h1>
        {isPending && <p className="muted">Loading…</p>}
        {error && <p role="alert" className="form-error">{error.message}</p>}
        {data?.length === 0 && <Empty />}
        <ul className="dataset-list">{data?.map((dataset) => <DatasetCard key={dataset.id} dataset={dataset} />)}</ul>
      </main>
    </div>
  );
}

function Empty(): ReactElement {
  return (
    <div className="card">
      <p>There is no dataset yet. On the machine that runs Maskloop:</p>
      <pre>maskloop images import DIR --dataset mine{"\n"}maskloop stage open assisted-manual --dataset mine</pre>
    </div>
  );
}

function DatasetCard({ dataset }: { dataset: Dataset }): ReactElement {
  const { name, n_images, n_done, n_masks, open_stage } = dataset;
  return (
    <li className="card dataset-card">
      <div>
        <h2>{name}</h2>
        <p className="muted">
          <span className={open_stage ? "badge badge-on" : "badge"}>{sayStage(open_stage)}</span>
          {formatNumber(n_done)} of {formatNumber(n_images)} images, {formatNumber(n_masks)} masks
        </p>
        <progress value={n_done} max={Math.max(n_images, 1)} aria-label={`${name}: images done`} />
      </div>
      <div className="row">
        <Link className="button" to={{ page: "progress", dataset: name }}><Icon name="chart" size={16} />Progress</Link>
        {open_stage && <Link className="button primary" to={{ page: "label", dataset: name }}>Label</Link>}
      </div>
    </li>
  );
}

function SignOut(): ReactElement {
  const user = useUser();
  const setMe = useSetMe();
  const leave = async (): Promise<void> => {
    await api.signOut();
    setMe(null);
  };
  return (
    <div className="row header-end">
      <span className="muted">{user.name}</span>
      <button type="button" className="button" onClick={() => void leave()}><Icon name="out" size={16} />Sign out</button>
    </div>
  );
}
