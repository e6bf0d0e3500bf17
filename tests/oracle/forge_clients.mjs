// Asks a forge what isoform asks it, through the client that is published for it, and tells what that understood.
//
//     forge_clients.mjs KIND API TOKEN REPOSITORY '{"number":1,"comment":2,"head":"…","merged":"…","person":"…"}'
import { createRequire } from "node:module";

const require = createRequire(`${process.env.ISOFORM_TEST_NODE}/node_modules/`);
const [kind, api, token, repository, world] = process.argv.slice(2);
const { number, comment, head, merged, person, base } = JSON.parse(world);
const [name, ...groups] = repository.split("/").reverse();
const owner = groups.reverse().join("/");
const text = "by a published client";

const forges = {
  async gitea() {
    const { giteaApi } = require("gitea-js");
    const { repos, user } = giteaApi(api.replace(/\/api\/v1$/, ""), { token, customFetch: fetch });
    const at = [owner, name];
    return {
      me: (await user.userGetCurrent()).data.id,
      pulls: (await repos.repoListPullRequests(...at, { state: "open", sort: "recentupdate", limit: 50 })).data.map((p) => p.number),
      head: (await repos.repoGetPullRequest(...at, number)).data.head.sha,
      comments: (await repos.issueGetComments(...at, number)).data.map((c) => c.id),
      comment: (await repos.issueGetComment(...at, comment)).data.id,
      edited: (await repos.issueEditComment(...at, comment, { body: text })).data.body,
      written: (await repos.issueCreateComment(...at, number, { body: text })).data.body,
      status: (await repos.repoCreateStatus(...at, head, { state: "pending", context: "c", description: "d" })).data.id > 0,
      permission: (await repos.repoGetRepoPermissions(...at, person)).data.permission,
      merged: [(await repos.repoGetCommitPullRequest(...at, merged)).data.number],
    };
  },

  async gitlab() {
    const { Gitlab } = require("@gitbeaker/rest");
    const client = new Gitlab({ host: api.replace(/\/api\/v4$/, ""), oauthToken: token });
    const { MergeRequests, MergeRequestNotes, Commits, ProjectMembers, Users } = client;
    const open = { projectId: repository, state: "opened", targetBranch: base, orderBy: "updated_at", sort: "desc" };
    return {
      me: (await Users.showCurrentUser()).id,
      account: (await Users.show(person)).bot,
      pulls: (await MergeRequests.all(open)).map((p) => p.iid),
      head: (await MergeRequests.show(repository, number)).sha,
      comments: (await MergeRequestNotes.all(repository, number, { sort: "asc", orderBy: "created_at" })).filter((c) => !c.system).map((c) => c.id),
      comment: (await MergeRequestNotes.show(repository, number, comment)).id,
      edited: (await MergeRequestNotes.edit(repository, number, comment, { body: text })).body,
      written: (await MergeRequestNotes.create(repository, number, text)).body,
      status: (await Commits.editStatus(repository, head, "failed", { name: "c", description: "d" })).id > 0,
      statuses: (await Commits.allStatuses(repository, head, { name: "c" })).map((s) => s.status),
      permission: (await ProjectMembers.show(repository, person, { includeInherited: true })).access_level,
      merged: (await Commits.allMergeRequests(repository, merged)).map((p) => p.iid),
    };
  },

  async bitbucket() {
    const { Bitbucket } = require("bitbucket");
    const client = new Bitbucket({ baseUrl: api, auth: { token }, notice: false });
    const { pullrequests, commits, commitstatuses, workspaces } = client;
    const at = { workspace: owner, repo_slug: name };
    const pull = { ...at, pull_request_id: number };
    const body = { content: { raw: text } };
    const build = { key: "c", name: "c", state: "FAILED", description: "d", url: "https://bitbucket.org/" };
    const values = ({ data }) => data.values;
    return {
      pulls: values(await pullrequests.list({ ...at, state: "OPEN", sort: "-updated_on", pagelen: 50 })).map((p) => p.id),
      head: (await pullrequests.get(pull)).data.source.commit.hash,
      commits: values(await pullrequests.listCommits(pull)).map((c) => c.hash),
      comments: values(await pullrequests.listComments({ ...pull, pagelen: 100 })).filter((c) => !c.deleted && !c.pending).map((c) => c.id),
      comment: (await pullrequests.getComment({ ...pull, comment_id: comment })).data.id,
      edited: (await pullrequests.updateComment({ ...pull, comment_id: comment, _body: body })).data.content.raw,
      written: (await pullrequests.createComment({ ...pull, _body: body })).data.content.raw,
      status: (await commitstatuses.createBuildStatus({ ...at, commit: head, _body: build })).data.key === "c",
      permission: values(await workspaces.listPermissionsForRepository({ ...at, q: `user.uuid="${person}"`, pagelen: 100 }))[0].permission,
      merge: (await commits.get({ ...at, commit: merged.slice(0, 12) })).data.hash,
      merged: values(await pullrequests.listForCommit({ ...at, commit: merged })).map((p) => p.id),
    };
  },
};

console.log(JSON.stringify(await forges[kind]()));
