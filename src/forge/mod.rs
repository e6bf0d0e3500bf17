//! Forges behind the port: GitHub, GitLab, Gitea and Bitbucket Cloud.
//!
//! Each adapter is a thin client of about ten calls over one [`reqwest`] client. They know nothing of what is written.
